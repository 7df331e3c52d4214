from __future__ import annotations

import time
from typing import Final

import pytest

from sevkit.errors import FormatError
from sevkit.hypervisor.xml_document import DOCUMENT_LIMIT, Node, parse_xml

BOMB: Final = (
    '<!DOCTYPE a [<!ENTITY x "xxxxxxxxxx">'
    + "".join(
        f'<!ENTITY {name} "{f"&{before};" * 10}">'
        for before, name in zip("xbcdefgh", "bcdefghi", strict=True)
    )
    + "]>"
)

#: What a hostile host may print, and a part of why it is refused.
HOSTILE: Final = {
    "entity bomb in text": (BOMB + "<a>&i;</a>", "document type"),
    "entity bomb in an attribute": (BOMB + '<a b="&i;"/>', "document type"),
    "external entity": (
        '<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]><a>&x;</a>',
        "document type",
    ),
    "external subset": ('<!DOCTYPE a SYSTEM "http://198.51.100.1/a.dtd"><a/>', "document type"),
    "document type after a comment": ("<!-- --><?pi?> <!DOCTYPE a><a/>", "document type"),
    "undeclared entity": ("<a>&x;</a>", "not XML"),
    "deep nesting": ("<a>" * 100_000 + "</a>" * 100_000, "not XML"),
    "a prolog of comment openings": ("<!--" * 250_000, "document type"),
    "a prolog of instruction openings": ("<?" * 500_000, "document type"),
    "white space alone": (" " * 1_000_000, "document type"),
    "a name of 900,000 letters": (f"<{'a' * 900_000}/>", "not XML"),
    "larger than the limit": ("<a>" + "x" * DOCUMENT_LIMIT + "</a>", "limit"),
    "larger than the limit in UTF-8": ("<a>" + "é" * (DOCUMENT_LIMIT // 2) + "</a>", "limit"),
    "UTF-16": ("<a/>".encode("utf-16"), "not UTF-8"),
    "UTF-16 without a mark": ("<a/>".encode("utf-16-le"), "document type"),
    "declared as UTF-7": ('<?xml version="1.0" encoding="UTF-7"?><a/>', "another encoding"),
    "EBCDIC": ('<?xml version="1.0" encoding="cp037"?><a/>'.encode("cp037"), "not UTF-8"),
    "Latin-1": (b'<?xml version="1.0" encoding="latin-1"?><a>\xe9</a>', "not UTF-8"),
    "half a surrogate pair": ("<a>\ud800</a>", "surrogate"),
    "NUL": ("<a>\0</a>", "not XML"),
    "NUL by number": ("<a>&#0;</a>", "not XML"),
    "two roots": ("<a/><a/>", "not XML"),
    "cut off": ("<a><b>", "not XML"),
    "nothing": ("", "document type"),
    "JSON": ("{}", "document type"),
    "another document": ("<b/>", "its root is <b>, not <a>"),
    "another namespace": ('<a xmlns="urn:x"/>', "its root is <{urn:x}a>"),
}


@pytest.mark.parametrize(("document", "why"), HOSTILE.values(), ids=HOSTILE)
def test_what_no_libvirt_prints_is_refused_at_once(document: str | bytes, why: str) -> None:
    started = time.monotonic()
    with pytest.raises(FormatError, match=r"^list") as caught:
        parse_xml(document, "list", "a")
    assert why in caught.value.message
    assert caught.value.message.isprintable()
    assert len(caught.value.message) < 400
    assert time.monotonic() - started < 2


def read(body: str) -> Node:
    return parse_xml(f"<a>{body}</a>", "list", "a")


@pytest.mark.parametrize(
    "document",
    [
        "<a/>",
        "\ufeff<a/>",
        '<?xml version="1.0" encoding="utf-8"?>\n<!-- <!DOCTYPE a> -->\n<a/>\n',
        '<a xmlns:q="urn:q"><q:b/><![CDATA[<!DOCTYPE a>]]></a>',
        b"<a>\xc3\xa9</a>",
    ],
)
def test_what_libvirt_and_people_write_is_read(document: str | bytes) -> None:
    assert parse_xml(document, "list", "a").name == "a"


def test_an_inclusion_is_not_followed() -> None:
    body = '<x:include xmlns:x="http://www.w3.org/2001/XInclude" href="/etc/passwd" parse="text"/>'
    node = read(body)
    assert node.element[0].get("href") == "/etc/passwd"
    assert not node.element.xpath("string(.)")


def test_comments_do_not_split_a_text() -> None:
    assert read("<b>1<!-- x -->0<?y?></b>").require("b").text() == "10"


def test_elements_are_found_by_their_path() -> None:
    node = read("<b><c d='1'/></b><e/><e/>")
    found = node.find("b", "c")
    assert found is not None
    assert (found.attribute("d"), found.attribute("x")) == ("1", None)
    assert node.find("b", "x") is None
    assert node.find("x", "c") is None
    assert len(node.all("e")) == 2


@pytest.mark.parametrize(
    ("body", "path", "why"),
    [
        ("<b/><b/>", ("b",), "stands twice in <a>"),
        ("<b><c/><c/></b>", ("b", "c"), "stands twice in <b>"),
        ("", ("b", "c"), "has no <b/c>"),
    ],
)
def test_an_element_that_is_missing_or_stands_twice_is_refused(
    body: str, path: tuple[str, ...], why: str
) -> None:
    with pytest.raises(FormatError, match=why):
        read(body).require(*path)


@pytest.mark.parametrize(
    ("text", "base", "value"),
    [("0", 10, 0), (" 47\n", 10, 47), ("0x30000", 16, 0x30000), ("30000", 16, 0x30000)],
)
def test_numbers_are_read_in_their_base(text: str, base: int, value: int) -> None:
    assert read(f"<b>{text}</b>").require("b").number(limit=1 << 32, base=base) == value


@pytest.mark.parametrize(
    "text", ["", "-1", "+1", "1.0", "0x10", "1_0", "٣", "4294967297", "1" * 21, "1 2", "<c>1</c>"]
)
def test_what_is_no_number_of_the_field_is_refused(text: str) -> None:
    with pytest.raises(FormatError, match="<b> at line 1"):
        read(f"<b>{text}</b>").require("b").number(limit=1 << 32)


@pytest.mark.parametrize(("value", "flag"), [("yes", True), ("no", False)])
def test_flags_are_yes_or_no(value: str, flag: bool) -> None:
    node = read(f"<b c='{value}'/>").require("b")
    assert node.flag("c") is node.require_flag("c") is flag
    assert node.flag("x") is None


@pytest.mark.parametrize("value", ["Yes", "true", "1", "", "on"])
def test_other_flags_are_refused(value: str) -> None:
    with pytest.raises(FormatError, match="c is neither yes nor no"):
        read(f"<b c='{value}'/>").require("b").flag("c")


def test_an_attribute_that_must_be_there_is_asked_for_by_name() -> None:
    node = read("<b/>").require("b")
    for ask in (node.require_attribute, node.require_flag):
        with pytest.raises(FormatError, match="<b> at line 1: has no attribute c"):
            ask("c")
    assert node.number_attribute("c", limit=9) is None


@pytest.mark.parametrize(("text", "data"), [("QUI=", b"AB"), (" QU\n I= ", b"AB"), ("", b"")])
def test_base64_may_be_broken_into_lines(text: str, data: bytes) -> None:
    assert read(f"<b>{text}</b>").require("b").base64() == data


@pytest.mark.parametrize("text", ["QUI", "QUJ=", "Q", "QU-_", "é", "====", "QUI=QUI="])
def test_what_is_not_canonical_base64_is_refused(text: str) -> None:
    with pytest.raises(FormatError, match="base64"):
        read(f"<b>{text}</b>").require("b").base64()

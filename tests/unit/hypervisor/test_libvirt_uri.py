from __future__ import annotations

import pytest

from sevkit.hypervisor.libvirt_uri import names_another_machine


@pytest.mark.parametrize(
    "uri",
    [
        "qemu+ssh://host/system",
        "qemu+ssh://root@host.example:2222/system?keyfile=/k",
        "qemu+tls://192.0.2.7/system",
        "qemu://host/system",
        "qemu+tcp://[2001:db8::1]:16509/system",
        "QEMU+SSH://HOST/system",
    ],
)
def test_a_host_of_its_own_is_another_machine(uri: str) -> None:
    assert names_another_machine(uri)


@pytest.mark.parametrize(
    "uri",
    [
        "qemu:///system",
        "qemu:///session",
        "qemu+unix:///system?socket=/run/x",
        "qemu+unix://host/system",
        "qemu+ext://host/system?command=/c",
        "qemu+ssh://localhost/system",
        "qemu+ssh://LOCALHOST./system",
        "qemu+ssh://a.localhost/system",
        "qemu+tcp://127.0.0.1/system",
        "qemu+tcp://127.9.9.9/system",
        "qemu+tcp://[::1]/system",
        "test:///default",
        "an-alias",
        "",
        "qemu+ssh://[/system",
    ],
)
def test_without_one_nobody_can_say_that_it_is(uri: str) -> None:
    assert not names_another_machine(uri)

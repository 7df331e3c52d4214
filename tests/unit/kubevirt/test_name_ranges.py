from __future__ import annotations

import pytest

from sevkit.kubevirt.name_ranges import fit, natural, shorten


@pytest.mark.parametrize(
    ("names", "items"),
    [
        ([], []),
        (["a"], ["a"]),
        (["b", "a", "b"], ["a", "b"]),
        (["worker-1"], ["worker-1"]),
        ([f"worker-{n:04}" for n in (1, 2, 3, 5)], ["worker-[0001-0003,0005]"]),
        ([f"worker-{n:04}" for n in range(1, 2401)] + ["worker-2402"], ["worker-[0001-2400,2402]"]),
        ([f"n{n}" for n in (8, 9, 10, 11)], ["n[8-11]"]),
        (["n08", "n09", "n10", "n100"], ["n[100,08-10]"]),
        (["n8", "n08", "n008"], ["n[8,08,008]"]),
        (["0", "1", "00"], ["[0-1,00]"]),
        (["a-1.x", "a-2.x", "b-1.x"], ["a-[1-2].x", "b-1.x"]),
        ([f"ip-10-0-{c}-{d}.ec2" for c in (0, 1) for d in (3, 4, 5)], None),
        (["r1n1", "r1n2", "r2n1"], ["r1n[1-2]", "r2n1"]),
    ],
)
def test_neighbours_are_one_range(names: list[str], items: list[str] | None) -> None:
    wanted = ["ip-10-0-0-[3-5].ec2", "ip-10-0-1-[3-5].ec2"] if items is None else items
    assert shorten(names) == wanted
    assert shorten(reversed(names)) == wanted


def test_order_is_that_of_people() -> None:
    names = ["n10", "n9", "n09", "m", "n", "n9a"]
    assert sorted(names, key=natural) == ["m", "n", "n09", "n9", "n9a", "n10"]
    assert len({natural(name) for name in names}) == len(names)


@pytest.mark.parametrize(
    ("limit", "text"),
    [
        (99, "worker-[0001-0003,0005,0009],x"),
        (30, "worker-[0001-0003,0005,0009],x"),
        (29, "worker-[0001-0003,0005,…"),
        (24, "worker-[0001-0003,0005,…"),
        (23, "worker-[0001-0003,…"),
        (17, "worker-[0001-000…"),
        (1, "…"),
    ],
)
def test_what_is_too_long_is_cut_after_a_whole_item(limit: int, text: str) -> None:
    assert fit(["worker-[0001-0003,0005,0009]", "x"], limit) == text
    assert len(text) <= limit

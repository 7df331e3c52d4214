"""The folder of simulated AMD that every ``sevkit simulate`` command can be given as --state."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from sevkit.abi.product import Product
from sevkit.cli.files import write_new
from sevkit.errors import FormatError, HostReadError
from sevkit.testing.simulated_amd import SimulatedAmd

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

#: Products as options name them.
PRODUCTS: Final = {product.casefold().replace(" ", "-"): product for product in Product}


@contextmanager
def open_state(folder: Path) -> Iterator[SimulatedAmd]:
    """Yield the simulated AMD in ``folder``; what the block makes of it is kept there.

    Raises ``FormatError`` for a folder of something else, ``HostReadError`` for one that cannot be
    read or written.
    """
    try:
        amd = SimulatedAmd.load(folder)
        yield amd
        amd.save(folder)
    except FormatError as error:
        raise FormatError(error.structure, "is not what was saved", hint=str(folder)) from error
    except OSError as error:
        raise HostReadError(f"{folder}: cannot be used: {error.strerror}") from error


def replace_file(path: Path, data: bytes) -> None:
    """Write a public file of the state anew."""
    path.unlink(missing_ok=True)
    write_new(str(path), data)

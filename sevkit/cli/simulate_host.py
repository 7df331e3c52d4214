"""``sevkit simulate host``: a host's /proc, /sys and /dev as files, healthy or broken."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from sevkit.cli.base import Command, settings
from sevkit.cli.messages import plain
from sevkit.cli.render import show_json
from sevkit.errors import HostReadError, UndecidedError, UsageError
from sevkit.testing.host.booting import boot
from sevkit.testing.host.defects import DEFECTS, with_defects
from sevkit.testing.host.presets import PRESETS
from sevkit.testing.host.write import write_host

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sevkit.testing.host.spec import HostSpec
    from sevkit.testing.host.state import HostState

SCHEMA: Final = "sevkit.io/simulate-host/v1"
#: A property of a running host's KVM, and how people call it.
_TECHNOLOGIES: Final = (("sev", "SEV"), ("sev_es", "SEV-ES"), ("sev_snp", "SEV-SNP"))


@click.command(cls=Command, short_help="Write a simulated host's /proc, /sys and /dev.")
@click.argument("preset", required=False, type=click.Choice(list(PRESETS)), metavar="[PRESET]")
@click.argument("program", nargs=-1, type=click.UNPROCESSED, metavar="[-- PROGRAM…]")
@click.option(
    "--defect",
    type=click.Choice(list(DEFECTS)),
    metavar="NAME",
    multiple=True,
    help="Break it in this way; see --list.",
)
@click.option("--out", metavar="DIR", help="Folder to write, empty or not there yet.")
@click.option(
    "--state", metavar="DIR", help="With PROGRAM: take the chip from here; see key-service."
)
@click.option("--list", "listing", is_flag=True, help="Show the presets and the defects.")
def command(**given: Any) -> int:  # noqa: ANN401  # click hands over options by name
    """Write everything that a node probe reads of a host into a folder.

    The files are what Linux shows on such a machine, worked out from its CPU, its BIOS, its
    kernel's parameters and its firmware; a defect changes one of these. Machines that cannot be
    are refused.

    With a PROGRAM nothing is written: it is run as on that machine, with its /sys, /proc and CPUID,
    and with /dev/sev, /dev/kvm and the CPU's registers answered by simulated devices. That needs
    root and /dev/fuse. The exit code is 0 if it ended with 0, and 4 with any other, which is told.

    \b
    Examples:
      sevkit simulate host --list
      sevkit simulate host genoa --out host
      sevkit simulate host milan --defect iommu-passthrough --defect guests-running --out host
      sevkit simulate host turin -- snphost ok
    """  # noqa: D301  # \b is click's mark for lines kept as they are
    if given["listing"]:
        if given["preset"] is not None or given["defect"] or given["out"] is not None:
            raise UsageError("--list goes alone")
        return _list()
    if given["preset"] is None:
        raise UsageError("which host?", hint="name a preset, or see --list")
    spec, out = with_defects(given["preset"], given["defect"]), given["out"]
    if bool(given["program"]) is (out is not None):
        raise UsageError(
            "a host is written, or a program runs on it", hint="--out DIR, or -- PROGRAM"
        )
    if given["state"] is not None and not given["program"]:
        raise UsageError("--state has the chip that a program would see", hint="-- PROGRAM")
    if given["program"]:
        return _run(spec, given["program"], given["state"])
    return _write(spec, given["defect"], out)


def _write(spec: HostSpec, defects: tuple[str, ...], out: str) -> int:
    try:
        state = write_host(spec, out)
    except NotADirectoryError as error:
        raise UsageError(f"{out}: is in something that is not a folder") from error
    except OSError as error:
        raise HostReadError(f"{out}: cannot be written: {error.strerror}") from error
    except ValueError as error:
        raise UsageError("--out is not the name of a folder") from error
    document = {
        "schema": SCHEMA,
        "preset": spec.name,
        "defects": list(defects),
        "root": out,
        "kvm": _offered(state),
        "asids": dict(state.misc_capacity or {}),
    }
    if settings().json:
        show_json(document)
    else:
        click.echo(f"root\t{plain(out)}")
        click.echo(f"host\t{', '.join([spec.name, *defects])}")
        click.echo(f"kvm\t{_words(state)}")
    return 0


def _run(spec: HostSpec, words: tuple[str, ...], state: str | None) -> int:
    """Run a program on the machine, pass on what it wrote, and tell how it ended."""
    from sevkit.testing.simulated_amd import SimulatedAmd  # noqa: PLC0415  # costs what few need
    from sevkit.testing.simulated_machine import open_machine  # noqa: PLC0415  # the same

    product = spec.cpu.product
    identity = None
    if product is not None and spec.firmware is not None:
        amd = SimulatedAmd() if state is None else SimulatedAmd.load(Path(state))
        identity = next((chip for chip in amd.chips if chip.product is product), None)
        if identity is None and state is not None:
            raise UsageError(f"{state} has no chip of {product}")
        identity = identity or amd.make_chip(product)
    with open_machine(spec, identity) as machine:
        done = machine.run(words)
    sys.stdout.buffer.write(done.stdout)
    sys.stderr.buffer.write(done.stderr)
    if done.returncode:
        raise UndecidedError(f"{words[0]} ended with exit code {done.returncode}")
    return 0


def _offered(state: HostState) -> dict[str, bool]:
    return {name: getattr(state.kvm, name) for name, _ in _TECHNOLOGIES}


def _words(state: HostState) -> str:
    return ", ".join(word for name, word in _TECHNOLOGIES if getattr(state.kvm, name)) or "none"


def _list() -> int:
    if settings().json:
        show_json(
            {
                "schema": SCHEMA,
                "presets": [
                    {
                        "name": name,
                        "product": spec.cpu.product,
                        "kernel": spec.kernel.release,
                        "kvm": _offered(boot(spec)),
                    }
                    for name, spec in PRESETS.items()
                ],
                "defects": [
                    {
                        "name": one.name,
                        "summary": one.summary,
                        "presets": [name for name in PRESETS if name in one.applies_to],
                    }
                    for one in DEFECTS.values()
                ],
            }
        )
        return 0
    for line in _lines():
        click.echo(line)
    return 0


def _lines() -> Iterator[str]:
    """Yield the presets with what KVM offers on them, and the defects with where they can be."""
    width = max(map(len, [*PRESETS, *DEFECTS]))
    yield "presets"
    for name, spec in PRESETS.items():
        yield f"  {name:<{width}}  {_describe(spec)}"
    yield "defects"
    for one in DEFECTS.values():
        yield f"  {one.name:<{width}}  {one.summary}"
        yield f"  {'':<{width}}  on {_places(one.applies_to)}"


def _describe(spec: HostSpec) -> str:
    product = spec.cpu.product or spec.cpu.vendor
    return f"{product}, Linux {spec.kernel.release}, KVM offers {_words(boot(spec))}"


def _places(presets: frozenset[str]) -> str:
    return ", ".join(name for name in PRESETS if name in presets)

"""``sevkit simulate kubevirt``: KubeVirt and its SEV hosts, for rehearsal of attested launches."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from sevkit.cli.base import Command, settings
from sevkit.cli.files import read_file, refuse_shared_stdin
from sevkit.cli.render import show_json
from sevkit.cli.serving import ListenAddress, until_terminated, wait
from sevkit.cli.simulated_state import PRODUCTS, open_state, replace_file
from sevkit.cli.values import WholeNumber
from sevkit.documents import DOCUMENT_LIMIT, parse_documents
from sevkit.errors import FormatError, UsageError
from sevkit.testing.firmware import FirmwareImage, encode_firmware
from sevkit.testing.kubevirt.api_server import ApiServerInstances
from sevkit.testing.kubevirt.host import SimulatedHost
from sevkit.testing.kubevirt.launch_wish import FIRMWARE_FILES, parse_wish
from sevkit.testing.kubevirt.lifecycle import LAUNCHER_JITTER, LAUNCHER_TIMEOUT
from sevkit.testing.kubevirt.simulation import SimulatedKubeVirt
from sevkit.testing.secure_processor.processor import SecureProcessor

if TYPE_CHECKING:
    from sevkit.abi.product import Product
    from sevkit.testing.kubevirt.launch_wish import Document
    from sevkit.testing.secure_processor.identity import ChipIdentity

SCHEMA: Final = "sevkit.io/simulate-kubevirt/v1"
_FIRMWARE_LIMIT: Final = 64 << 20
_KIND: Final = "VirtualMachineInstance"


@click.command(cls=Command, short_help="Serve KubeVirt's launch subresources.")
@click.option("--state", metavar="DIR", required=True, help="Where keys and chips are kept.")
@click.option(
    "--product",
    type=click.Choice(list(PRODUCTS)),
    default="milan",
    show_default=True,
    help="What the nodes have.",
)
@click.option(
    "--host-count",
    type=WholeNumber(1, 64),
    default=1,
    show_default=True,
    help="How many nodes there are, each with a chip of its own.",
)
@click.option(
    "--firmware",
    metavar="FILE",
    help="OVMF image that guests are launched with; else a small one that boots nothing.",
)
@click.option("--vmi", metavar="FILE", multiple=True, help="Create the VMIs of this manifest.")
@click.option(
    "--deadline",
    type=WholeNumber(1, 86_400),
    help="Seconds that a launcher waits for its session.  [default: 240 to 359]",
)
@click.option(
    "--listen",
    type=ListenAddress(),
    default="127.0.0.1:0",
    show_default=True,
    help="Where to listen; port 0 takes a free one.",
)
@click.option("--tls-name", metavar="NAME", multiple=True, help="Further names in the certificate.")
@click.option("--kubeconfig", metavar="FILE", help="Lead the VMIs of this API server.")
def command(**given: Any) -> int:  # noqa: ANN401  # click hands over options by name
    """Serve KubeVirt's launch subresources for VMIs on simulated SEV hosts that really launch.

    It is virt-api, controllers and nodes in one: VMIs are created, read, watched and deleted at
    /apis/kubevirt.io/v1, scheduled, launched and paused as KubeVirt does, and attested at
    /apis/subresources.kubevirt.io/v1. Who asks is never checked. With --kubeconfig the VMIs are
    those of an API server, which calls it as an APIService.

    Keys and chips are kept in --state (mode 0700), in the same form as 'simulate key-service'
    keeps them: no verifier accepts them unless it is given the root by name.

    \b
    Example:
      sevkit simulate kubevirt --state sim --firmware OVMF.amdsev.fd --vmi vmi.yaml &
      curl --cacert sim/kubevirt-ca.pem URL/apis/subresources.kubevirt.io/v1/\\
        namespaces/default/virtualmachineinstances/NAME/sev/fetchcertchain >chain.json
      sevkit attest platform --chain chain.json --cek sim/node-1-cek.cert \\
        --ca sim/milan-ask-ark.cert --root sim/milan-ark.cert

    URL is in its answer. It serves until it is interrupted (130) or gets SIGTERM (0).
    """  # noqa: D301  # \b is click's mark for lines kept as they are
    refuse_shared_stdin(*given["vmi"], given["firmware"])
    if given["kubeconfig"] and given["vmi"]:
        raise UsageError("--vmi is for VMIs of its own", hint="create them in the API server")
    vmis = [vmi for path in given["vmi"] for vmi in _read_vmis(path)]
    firmware = encode_firmware(FirmwareImage())
    if given["firmware"]:
        firmware = read_file(given["firmware"], limit=_FIRMWARE_LIMIT)
    instances = None
    if given["kubeconfig"]:
        instances = ApiServerInstances.from_kubeconfig(Path(given["kubeconfig"]))
    state = Path(given["state"])
    chips = _open_chips(state, PRODUCTS[given["product"]], given["host_count"])
    hosts = [SimulatedHost(f"node-{n}", SecureProcessor(chip)) for n, chip in enumerate(chips, 1)]
    deadline = given["deadline"]
    with until_terminated() as ended:
        simulated = SimulatedKubeVirt(
            hosts,
            dict.fromkeys(FIRMWARE_FILES.values(), firmware),
            instances=instances,
            timeout=float(deadline or LAUNCHER_TIMEOUT),
            jitter=0 if deadline else LAUNCHER_JITTER,
            listen=given["listen"],
            names=given["tls_name"],
        )
        with simulated:
            replace_file(state / "kubevirt-ca.pem", simulated.ca)
            for vmi in vmis:
                simulated.create(vmi)
            _show(simulated.base_url, state, [_describe(state, host) for host in hosts])
            wait(ended)
    return 0


def _read_vmis(path: str) -> list[Document]:
    found: list[Document] = []
    for document in parse_documents(read_file(path, limit=DOCUMENT_LIMIT), path):
        if not isinstance(document, dict) or document.get("kind") != _KIND:
            raise UsageError(f"{path}: holds something else than a {_KIND}")
        metadata = document.get("metadata")
        if not isinstance(metadata, dict) or not isinstance(metadata.get("name"), str):
            raise FormatError(path, "a VMI has no name")
        parse_wish(document)
        found.append(document)
    return found


def _open_chips(folder: Path, product: Product, count: int) -> list[ChipIdentity]:
    """Return ``count`` chips of the simulated AMD in ``folder``; those that lack are made."""
    with open_state(folder) as amd:
        chips = [chip for chip in amd.chips if chip.product is product][:count]
        return chips + [amd.make_chip(product) for _ in range(count - len(chips))]


def _describe(state: Path, host: SimulatedHost) -> dict[str, Any]:
    chip = host.processor.identity
    cek = state / f"{host.name}-cek.cert"
    replace_file(cek, chip.signed_cek)
    line = chip.line.casefold()
    return {
        "name": host.name,
        "product": str(chip.product),
        "cek": str(cek),
        "ca": str(state / f"{line}-ask-ark.cert"),
        "root": str(state / f"{line}-ark.cert"),
    }


def _show(url: str, state: Path, nodes: list[dict[str, Any]]) -> None:
    ca = str(state / "kubevirt-ca.pem")
    if settings().json:
        show_json({"schema": SCHEMA, "url": url, "ca": ca, "nodes": nodes})
        return
    click.echo(f"url\t{url}\nca\t{ca}")
    for node in nodes:
        click.echo(
            f"node\t{node['name']}\t{node['product']}\tcek {node['cek']}\troot {node['root']}"
        )

"""The same libvirt domains and inputs given to virt-qemu-sev-validate, and the same verdicts.

Both run unchanged, as their users run them, against domains that are launched on a simulated secure
processor; libvirt-python is the simulated one for both. In ``AGREED`` both say the same, each in
its own exit codes. ``DIFFERENT`` says why they do not: it misses what makes the domain insecure,
has another name for the same refusal, or injects where our rule releases nothing.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Final, NamedTuple

import pytest

from hack.domain_rounds import KEY, LOCAL, REMOTE, Outcome, Round, Setup, run_rounds
from sevkit.abi.secret_packet import parse_secret_table
from sevkit.secret import Secret

pytest.importorskip("lxml", reason="no lxml (extra 'libvirt')")

GUID: Final = "736869e5-84f0-4973-92ec-06879ce3da0b"
#: What its exit codes are with us: mismatch, usage, insecure, configuration, state of the domain.
MEANS: Final = {0: {0}, 1: {1}, 2: {2}, 3: {5}, 4: {3}, 5: {3, 4}}
ES: Final = Setup(policy=5)
HOT: Final = (
    "<vcpu>2</vcpu><vcpus><vcpu id='0' enabled='yes'/>"
    "<vcpu id='1' enabled='yes' hotpluggable='yes'/></vcpus>"
)
KERNEL: Final = "<kernel>/vmlinuz</kernel>"
BOOT: Final = f"{KERNEL}<initrd>/initrd</initrd><cmdline>quiet</cmdline>"
HASHES: Final = " kernelHashes='yes'"
BOOTED: Final = Setup(boot=BOOT, hashes=HASHES)
UNHASHED: Final = Setup(boot=KERNEL)
FLASH: Final = "<loader readonly='yes' type='pflash'{}>/ovmf.fd</loader>"
NVRAM: Final = Setup(loader=FLASH.format("") + "<nvram>/vars.fd</nvram>")
VARIABLES: Final = ("--accept=unmeasured-variables",)
BOTH: Final = ("--accept=unmeasured-boot", *VARIABLES)
PARTS: Final = {
    "kernel": "--kernel={owner}/vmlinuz",
    "initrd": "--initrd={owner}/initrd",
    "cmdline": "--cmdline=quiet",
    "another cmdline": "--cmdline=debug",
}


class Case(NamedTuple):
    """A domain, what each is told beside it, and the exit codes: ours, theirs."""

    setup: Setup
    codes: tuple[int, int] = (0, 0)
    ours: tuple[str, ...] = ()
    theirs: tuple[str, ...] = ()
    firmware: str = "ovmf.fd"
    uri: str = REMOTE
    why: str = ""

    def measuring(self, *parts: str) -> Case:
        """Tell both the parts of a direct boot."""
        words = tuple(PARTS[part] for part in parts)
        return self._replace(ours=(*self.ours, *words), theirs=(*self.theirs, *words))

    def with_cpus(self, vcpus: int, theirs: int | None = None) -> Case:
        """Tell both how many vCPUs there are, and of which CPU."""
        count = vcpus if theirs is None else theirs
        signature = ("--cpu-family=23", "--cpu-model=49", "--cpu-stepping=0")
        return self._replace(
            ours=(*self.ours, f"--vcpus={vcpus}", "--vcpu-type=EPYC-Rome"),
            theirs=(*self.theirs, f"--num-cpus={count}", *signature),
        )

    def injecting(self, *accepted: str, key: str = "disk.key") -> Case:
        """Let both inject a secret."""
        return self._replace(
            ours=(*self.ours, *accepted, f"--secret={GUID}={{owner}}/{key}"),
            theirs=(*self.theirs, f"--inject-secret={GUID}:{{owner}}/{key}"),
        )


AGREED: Final = {
    "sev": Case(Setup()),
    "sev-es": Case(ES).with_cpus(2),
    "another number of vCPUs": Case(ES, (1, 1)).with_cpus(3),
    "vCPUs that are plugged in later": Case(Setup(policy=5, vcpus=HOT)).with_cpus(1),
    "a measured boot": Case(BOOTED).measuring("kernel", "initrd", "cmdline"),
    "a measured boot of sev-es": Case(Setup(policy=5, boot=BOOT, hashes=HASHES))
    .with_cpus(2)
    .measuring("kernel", "initrd", "cmdline"),
    "a measured kernel alone": Case(Setup(boot=KERNEL, hashes=HASHES)).measuring("kernel"),
    "another command line": Case(BOOTED, (1, 1)).measuring("kernel", "initrd", "another cmdline"),
    "another firmware": Case(Setup(), (1, 1), firmware="other.fd"),
    "somebody else's session": Case(Setup(others_session=True), (1, 1)),
    "flash without variables": Case(Setup(loader=FLASH.format(" stateless='yes'"))),
    "nvram": Case(NVRAM, (5, 3)),
    "nvram, accepted": Case(NVRAM, (0, 0), VARIABLES, ("--insecure",)),
    "a direct boot without hashes": Case(UNHASHED, (5, 3)),
    "on the host": Case(Setup(), (5, 3), uri=LOCAL),
    "on the host, accepted": Case(
        Setup(), (0, 0), ("--accept=local-hypervisor",), ("--insecure",), uri=LOCAL
    ),
    "no DH certificate": Case(Setup(lies=(("<dhCert>.*</dhCert>", ""),)), (3, 4)),
    "no session": Case(Setup(lies=(("<session>.*</session>", ""),)), (3, 4)),
    "no firmware": Case(Setup(lies=(("<loader.*</loader>", ""),)), (3, 4)),
    "of SNP": Case(Setup(lies=(("type='sev'", "type='sev-snp'"),)), (3, 4)),
    "no launch security": Case(Setup(kind=""), (3, 4)),
    "a guest that runs": Case(Setup(state="running"), (3, 5)),
    "a domain that is shut off": Case(Setup(state="off"), (4, 5)),
    "hashes without a kernel": Case(Setup(hashes=HASHES), (3, 4)),
    "a secret": Case(Setup()).injecting(*BOTH),
    "a secret of sev-es": Case(ES).with_cpus(2).injecting(*BOTH),
    "a secret for a measured boot": Case(BOOTED)
    .measuring("kernel", "initrd", "cmdline")
    .injecting(*VARIABLES),
    "a secret for another firmware": Case(Setup(), (1, 1), firmware="other.fd").injecting(*BOTH),
}

DIFFERENT: Final = {
    "another policy than the session's": Case(
        Setup(lies=(("<policy>0x1<", "<policy>0x0<"),)),
        (3, 0),
        why="it does not look at <policy>, and takes the policy that the host reports (facts 1.1)",
    ),
    "an empty session": Case(
        Setup(lies=(("<session>.*</session>", "<session/>"),)),
        (3, 0),
        why="it looks that the element is there, not what is in it (facts 1.9)",
    ),
    "no session at all": Case(
        Setup(session=False),
        (1, 4),
        why="it asks before it computes; our verdict fails domain.session as well",
    ),
    "flash that is not stateless": Case(
        Setup(loader=FLASH.format("")),
        (5, 0),
        why="it looks for <nvram> only; variables are unmeasured wherever they are (facts 1.2)",
    ),
    "a variable store of QEMU's": Case(
        Setup(loader="<loader type='rom'>/ovmf.fd</loader><varstore path='/v.json'/>"),
        (5, 0),
        why="it does not know <varstore>, which is newer than it is (facts 1.2)",
    ),
    "a policy that lets the host debug": Case(
        Setup(policy=0), (3, 0), why="it takes any policy; bit 0 forbids debugging (facts 1.1)"
    ),
    "a secret that nobody accepted the risk of": Case(
        Setup(), (5, 0), why="it injects whatever boots: see the trust model's coverage"
    ).injecting(),
    "a secret and a firmware without room": Case(
        Setup(loader="<loader type='rom'>/no-area.fd</loader>"),
        (3, 6),
        firmware="no-area.fd",
        why="it finds out from QEMU, by an error that it calls a bug of its own",
    ).injecting(*BOTH),
    "an empty secret": Case(
        Setup(), (65, 0), why="it sends a key that is none, as KubeVirt would (trust model)"
    ).injecting(*BOTH, key="empty"),
    "no vCPUs at all": Case(
        Setup(policy=5, vcpus="<vcpu>1</vcpu>"),
        (2, 0),
        why="it takes 0 for 1: bytes times a negative number are none (facts 7.3)",
    ).with_cpus(0),
    "sev-es without a CPU": Case(
        ES, (2, 3), why="the host's count would be insecure: we have no option to take it"
    ),
    "a measured boot that was not given": Case(
        BOOTED, (1, 2), why="it wants to read the files at the host's paths and cannot, remotely"
    ),
    "a boot that was given and is not measured": Case(
        UNHASHED, (1, 2), why="it asks before it computes; our verdict has domain.boot as well"
    ).measuring("kernel"),
    "a direct boot without hashes, accepted": Case(
        UNHASHED,
        (0, 2),
        ("--accept=unmeasured-boot",),
        ("--insecure",),
        why="it wants to read the files at the host's paths and cannot, remotely",
    ),
}
CASES: Final = {**AGREED, **DIFFERENT}


def rounds_of(case: Case) -> tuple[Round, Round]:
    """Return what both are asked. Without a secret ours does not resume, as theirs never does."""
    firmware = f"--firmware={{owner}}/{case.firmware}"
    with_secret = any(word.startswith("--secret=") for word in case.ours)
    ours = ("attest", "domain", "{name}", f"--connect={case.uri}", "--session={owner}", firmware)
    theirs = ("--domain={name}", "--connect", case.uri, "--tik={owner}/tik.bin")
    return (
        Round(
            "sevkit",
            case.setup,
            (
                *ours,
                "--output=json",
                "--no-explain",
                *(() if with_secret else ("--no-inject", "--no-unpause")),
                *case.ours,
            ),
        ),
        Round("peer", case.setup, (*theirs, "--tek={owner}/tek.bin", firmware, *case.theirs)),
    )


def secrets(outcome: Outcome) -> dict[str, bytes]:
    """Return what the guest finds, by its GUID."""
    tables = (Secret(bytes.fromhex(table)) for table in outcome.tables)
    entries = (entry for table in tables for entry in parse_secret_table(table))
    return {str(entry.guid): entry.data.reveal() for entry in entries}


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Outcome, Outcome]]:
    fallback = Path.home() / ".cache" / "sevkit" / "peers"
    folder = Path(os.environ.get("SEVKIT_PEERS") or fallback) / "virt-qemu-sev-validate"
    path = folder / "usr" / "bin" / "virt-qemu-sev-validate"
    if not path.is_file():
        pytest.skip(f"no {path}: hack/peers installs it")
    rounds = [one for case in CASES.values() for one in rounds_of(case)]
    found = run_rounds(tmp_path_factory.mktemp("domains"), rounds, peer=path)
    return dict(zip(CASES, zip(found[::2], found[1::2], strict=True), strict=True))


@pytest.mark.parametrize("name", CASES)
def test_both_end_as_the_tables_say(
    name: str, outcomes: dict[str, tuple[Outcome, Outcome]]
) -> None:
    case, (ours, theirs) = CASES[name], outcomes[name]
    assert (ours.code, theirs.code) == case.codes, (ours.err, ours.out, theirs.err)
    assert (ours.code in MEANS.get(theirs.code, set())) == (name in AGREED)
    assert bool(case.why) == (name in DIFFERENT)


@pytest.mark.parametrize("name", AGREED)
def test_both_leave_the_guest_with_the_same(
    name: str, outcomes: dict[str, tuple[Outcome, Outcome]]
) -> None:
    ours, theirs = outcomes[name]
    assert (ours.state, secrets(ours)) == (theirs.state, secrets(theirs))
    injected = any(word.startswith("--secret=") for word in CASES[name].ours) and ours.code == 0
    assert secrets(ours) == ({GUID: KEY} if injected else {})
    assert (ours.state == "running") == (injected or CASES[name].setup.state == "running")


@pytest.mark.parametrize("name", CASES)
def test_a_refusal_of_ours_gives_nothing_and_runs_nothing(
    name: str, outcomes: dict[str, tuple[Outcome, Outcome]]
) -> None:
    ours, _ = outcomes[name]
    if ours.code == 0:
        return
    assert ours.tables == ()
    assert ours.state == {"off": "shut off"}.get(CASES[name].setup.state, CASES[name].setup.state)
    assert json.loads(ours.out)["exit_code"] == ours.code
    assert KEY.decode() not in ours.out + ours.err

"""The ``caBundle`` of a webhook: certificates by which the API server knows the webhook. Pure.

Source: k8s.io/api/admissionregistration/v1, WebhookClientConfig: PEM, in base64 once more.
"""

from __future__ import annotations

import base64
import binascii
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from cryptography import x509

from sevkit.host.doctor.check import Verdict

if TYPE_CHECKING:
    from datetime import datetime

#: Whoever rotates certificates has done so long before.
SOON: Final = timedelta(days=7)


def judge_authority(bundle: str, now: datetime) -> tuple[Verdict, str]:
    """Return whether the API server can know a server by ``bundle`` now, and why not, or how long.

    A bundle may hold old authorities beside the one in use: the one that lasts longest counts.
    """
    if not bundle:
        return Verdict.FAIL, "caBundle is empty: nobody has written it yet"
    try:
        found = x509.load_pem_x509_certificates(base64.b64decode(bundle, validate=True))
    except (binascii.Error, ValueError):
        return Verdict.FAIL, "caBundle is no PEM certificates"
    valid = [one.not_valid_after_utc for one in found if one.not_valid_before_utc <= now]
    if not valid:
        return Verdict.FAIL, "caBundle's certificates are not valid yet"
    last = max(valid)
    words = f"{last:%Y-%m-%d %H:%M} UTC"
    if last <= now:
        return Verdict.FAIL, f"caBundle expired on {words}"
    verdict = Verdict.PASS if last - now > SOON else Verdict.WARN
    return verdict, f"until {words}"

"""S3: what is written can be read, and deleted again, where archive and backups go."""

from __future__ import annotations

from contracts.errors import SettingsError
from ops.doctor.finding import Finding, Patient, fine, skipped, wrong
from ops.vault.place import NotThereError, PlaceError
from ops.vault.s3 import check_s3


async def check_archive(patient: Patient) -> list[Finding]:
    """A few bytes go there and back."""
    settings = patient.settings
    where = f"s3://{settings.s3_bucket}/{settings.s3_prefix}"
    if not settings.s3_bucket:
        return [skipped("S3", "RETOLD_S3_BUCKET is not set: there is no archive")]
    try:
        await check_s3(settings)
    except SettingsError as error:
        return [wrong("S3", str(error), "mend RETOLD_S3_BUCKET, RETOLD_S3_ENDPOINT and RETOLD_S3_REGION")]
    except NotThereError:
        remedy = "make that bucket, or set RETOLD_S3_BUCKET to one that is there"
        return [wrong("S3", f"there is no bucket {settings.s3_bucket}", remedy)]
    except PlaceError as error:
        remedy = "look at RETOLD_S3_ENDPOINT, RETOLD_S3_KEY_ID and RETOLD_S3_SECRET, and whether they may write there"
        return [wrong("S3", str(error), remedy)]
    return [fine("S3", f"{where} takes, gives and deletes")]

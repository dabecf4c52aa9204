"""The encoders that come with the page: small ones, which scripts/app_encoders.sh pretrains on the samples."""

from pathlib import Path

_FOLDER = Path(__file__).parent / "encoders"
ENCODERS = {kind: str(_FOLDER / kind) for kind in ("image", "audio", "text")}

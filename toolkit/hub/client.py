"""Requests to a Hub: the client with its timeouts, retries, and errors translated to one line that says what to do."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any, TypeVar

from toolkit.errors import InputError, RunFailed, first_line
from toolkit.hub.safety import Kind, redact_token

T = TypeVar("T")

ATTEMPTS, FIRST_WAIT = 5, 0.5  # a failed request is repeated after 0.5, 1, 2 and 4 seconds
TIMEOUT = (10.0, 60.0, 60.0, 60.0)  # seconds to connect, to read and write some bytes, to get a free connection


def connect():
    """Create a `huggingface_hub.HfApi` whose requests time out, and silence the library's own messages.

    Raises `RunFailed` if HF_ENDPOINT, the address of a proxy or the file of a CA is malformed.
    """
    from huggingface_hub import HfApi, constants, get_session, set_client_factory
    from huggingface_hub.utils import disable_progress_bars, logging

    try:
        default = get_session()
        default.build_request("GET", constants.ENDPOINT)
    except Exception as error:  # of several kinds; neither line sends anything
        raise RunFailed(
            f"{constants.ENDPOINT} cannot be asked ({first_line(error)}); check HF_ENDPOINT, SSL_CERT_FILE, and "
            "HTTPS_PROXY and NO_PROXY if there is a proxy"
        ) from None

    set_client_factory(lambda: type(default)(event_hooks=default.event_hooks, follow_redirects=True, timeout=TIMEOUT))
    logging.set_verbosity_error()
    if not sys.stderr.isatty():
        disable_progress_bars()
    return HfApi()


def choose_transfer(api, repo_id: str, kind: Kind = "model") -> str:
    """Choose how large files go to an existing repository: "Xet", or "LFS" if the client or the server has no Xet.

    With hf_xet installed the client tries only Xet, and a server without it cannot be told from one that hangs.
    """
    from huggingface_hub import constants
    from huggingface_hub.utils import build_hf_headers, get_session

    if constants.HF_HUB_DISABLE_XET or find_spec("hf_xet") is None:
        return "LFS"
    address = f"{api.endpoint}/api/{kind}s/{repo_id}/xet-write-token/main"
    answer = retry(lambda: get_session().get(address, headers=build_hf_headers(token=api.token)))
    if answer.status_code != 404:
        return "Xet"
    # Uploads ask only this constant (huggingface_hub 2.4, _commit_api.py, line 396); no function takes it.
    constants.HF_HUB_DISABLE_XET = True
    return "LFS"


def retry(request: Callable[[], T]) -> T:
    """Return what `request` returns, repeating it with growing waits while the network or the Hub fails."""
    for attempt in range(ATTEMPTS - 1):
        try:
            return request()
        except Exception as error:
            if not _is_transient(error):
                raise
        time.sleep(FIRST_WAIT * 2**attempt)
    return request()


def _is_transient(error: BaseException | None) -> bool:
    """Whether the same request may succeed later."""
    from huggingface_hub.errors import HfHubHTTPError, HTTPError, OfflineModeIsEnabled

    while error is not None:
        if isinstance(error, OfflineModeIsEnabled) or type(error).__name__ == "ReadTimeout":
            return False  # waiting a minute for an answer is enough
        if isinstance(error, HfHubHTTPError):
            return _is_transient_status(error.response.status_code)
        if isinstance(error, HTTPError | ConnectionError | RuntimeError):  # hf_xet raises RuntimeError
            return True
        if "Consistency check failed" in str(error):
            return True
        error = error.__cause__ or error.__context__
    return False


def _is_transient_status(status: int) -> bool:
    return status in (408, 412, 429) or status >= 500


@contextmanager
def translate_errors(repo_id: str) -> Iterator[None]:
    """Turn errors of the client into one line that says what to do, without the user's token: `InputError` if the user
    can fix it (a name, a token, a file), `RunFailed` if the Hub or the network failed."""
    from huggingface_hub import constants, get_token
    from huggingface_hub import errors as hub

    where = f"{repo_id} at {constants.ENDPOINT}"

    def message(error: BaseException) -> str:
        return redact_token(getattr(error, "server_message", None) or first_line(error))

    try:
        yield
    except (InputError, RunFailed):
        raise
    except hub.HFValidationError as error:
        raise InputError(f"{repo_id}: {first_line(error)}") from None
    except hub.GatedRepoError:
        raise InputError(f"{where}: gated; ask for access on its page, then set HF_TOKEN") from None
    except hub.RepositoryNotFoundError:
        known = "with this token" if get_token() else "without a token, set HF_TOKEN"
        raise InputError(f"{where}: no such repository, or a private one that cannot be seen {known}") from None
    except hub.RevisionNotFoundError:
        raise InputError(f"{where}: no such revision") from None
    except (hub.OfflineModeIsEnabled, hub.LocalEntryNotFoundError) as error:
        if constants.HF_HUB_OFFLINE:
            raise InputError(f"{where}: HF_HUB_OFFLINE is set, unset it to reach the Hub") from None
        raise RunFailed(f"{where}: cannot be reached ({message(error.__cause__ or error)})") from None
    except hub.HfHubHTTPError as error:
        status = error.response.status_code
        if status in (401, 403):
            what = "HF_TOKEN does not allow it" if get_token() else "needs a token, set HF_TOKEN"
            raise InputError(f"{where}: {what} ({message(error)})") from None
        raised: Any = RunFailed if _is_transient_status(status) else InputError
        raise raised(f"{where}: {status}, {message(error)}") from None
    except UnicodeEncodeError:
        raise InputError(f"{where}: HF_TOKEN or a name has letters that no token or address has") from None
    except (hub.HTTPError, ConnectionError) as error:
        hint = "; set SSL_CERT_FILE to the file of your CA" if "CERTIFICATE_VERIFY_FAILED" in str(error) else ""
        raise RunFailed(f"{where}: does not answer ({message(error)}){hint}") from None
    except (ValueError, OSError, RuntimeError) as error:
        if "Consistency check failed" in str(error):
            raise RunFailed(f"{where}: a file ended early; nothing was kept") from None
        if isinstance(error, ValueError) and "metadata" in str(error):  # the Hub refuses those of the card
            raise InputError(f"{where}: README.md is not taken ({' '.join(message(error).split())})") from None
        if isinstance(error, OSError) and error.errno is not None:  # of a disk
            raise
        raise RunFailed(f"{where}: does not answer as a Hub does ({message(error)})") from None

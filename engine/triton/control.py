"""A running server's health and models, over its HTTP port (KServe v2 and Triton's repository extension)."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from dataclasses import dataclass
from typing import Any

from engine.errors import BackendError

_TIMEOUT_S = 120.0  # a model is loaded before the answer comes


@dataclass(frozen=True, slots=True)
class Control:
    """The server at `address` (HOST:PORT)."""

    address: str

    def ready(self, model: str = "") -> bool:
        """Whether the server, or one of its models, takes requests."""
        path = f"v2/models/{model}/ready" if model else "v2/health/ready"
        try:
            self._call("GET", path, timeout_s=2.0)
        except BackendError:
            return False
        return True

    def name(self) -> str:
        """What the server was told that it is called; nothing where none answers."""
        try:
            return str(json.loads(self._call("GET", "v2", timeout_s=2.0))["name"])
        except BackendError:
            return ""

    def load(self, model: str) -> None:
        """Load a model, or again with its present configuration; raises BackendError with the server's reason."""
        self._call("POST", f"v2/repository/models/{model}/load")

    def unload(self, model: str) -> None:
        """Unload a model; requests in it are finished."""
        self._call("POST", f"v2/repository/models/{model}/unload")

    def index(self) -> dict[str, str]:
        """The models that the server has touched, by name, and their state: `READY`, `UNAVAILABLE`, ..."""
        models = json.loads(self._call("POST", "v2/repository/index"))
        return {model["name"]: str(model.get("state", "")) for model in models if "state" in model}

    def _call(self, method: str, path: str, timeout_s: float = _TIMEOUT_S) -> bytes:
        request = urllib.request.Request(f"http://{self.address}/{path}", method=method)
        try:
            with urllib.request.urlopen(request, timeout=timeout_s) as response:
                answer: bytes = response.read()
                return answer
        except urllib.error.HTTPError as error:
            raise BackendError(f"tritonserver at {self.address}: {path}: {_reason(error.read())}") from None
        except OSError as error:
            raise BackendError(f"tritonserver at {self.address}: cannot be reached ({error})") from None


def _reason(body: bytes) -> str:
    try:
        document: Any = json.loads(body)
        return str(document["error"])
    except (ValueError, KeyError, TypeError):
        return body.decode(errors="replace") or "refused without a reason"

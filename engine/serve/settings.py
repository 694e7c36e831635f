"""How a server is told to behave."""

import ipaddress
from dataclasses import dataclass

from xmr.engine.errors import UsageError

LOCALHOST = "localhost"
TOKEN_LENGTH = 8  # at least


def fault_of_token(text: str) -> str:
    """What was found, and what to do; empty for a good one."""
    for place, letter in enumerate(text, 1):
        if not (letter.isascii() and letter.isprintable()):
            where = f"character {place} of the token, U+{ord(letter):04X}"
            return f"{where}, is not printable ASCII; use letters and digits"
    if len(text) < TOKEN_LENGTH:
        return f"a token of fewer than {TOKEN_LENGTH} characters found; make a longer one"
    return ""


@dataclass(frozen=True)
class Settings:
    """UsageError for a server that everybody could ask without being told so."""

    host: str = "127.0.0.1"
    port: int = 8000  # 0: a free one
    token: str | None = None  # that every request but /healthz brings
    insecure: bool = False  # other machines may ask without a token
    writable: bool = False  # items may be added and deleted
    allow_urls: bool = False  # a question may name a picture or sound elsewhere
    cors: tuple[str, ...] = ()  # origins whose pages may ask
    max_body_bytes: int = 16_000_000
    max_waiting: int = 256  # questions; more are refused
    body_s: float = 20.0  # for a client to send a request
    answer_s: float = 30.0  # for an answer to a question
    device: str = "auto"
    runtime: str = "auto"

    def __post_init__(self) -> None:
        if self.token is not None and (fault := fault_of_token(self.token)):
            raise UsageError(f"--token: {fault}")
        if not self.is_local and self.token is None and not self.insecure:
            raise UsageError(
                f"--host {self.host!r}: other machines could ask; give them a --token, or pass --insecure to let all in"
            )
        if wrong := [origin for origin in self.cors if "://" not in origin or origin.endswith("/")]:
            raise UsageError(f"--cors {wrong[0]}: no origin; write it as https://example.org")

    @property
    def is_local(self) -> bool:
        """Whether only this machine can ask."""
        if self.host == LOCALHOST:
            return True
        try:
            return ipaddress.ip_address(self.host.strip("[]")).is_loopback
        except ValueError:
            return False

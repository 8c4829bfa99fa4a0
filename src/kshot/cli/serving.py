"""What `kshot demo` and `kshot serve` share: where to listen, how much to bear."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from kshot.extras import install_command, missing_modules

if TYPE_CHECKING:
    from kshot.demo.limits import Limits

__all__ = ["ServerFlags", "need_server"]


@dataclass(frozen=True)
class ServerFlags:
    """Where to listen, and how much to bear.

    Attributes:
        host: Address to listen on. The default answers this computer only; 0.0.0.0 answers the
            network, whoever is there.
        port: Port to listen on; 0 takes a free one.
        rate: Requests a second from one address before it is asked to wait.
        device: Where to compute: "auto" takes a GPU when there is one.
    """

    host: str = "127.0.0.1"
    port: int = 8765
    rate: float = 40.0
    device: str = "auto"

    def limits(self) -> "Limits":
        """The bounds of what visitors may ask for.

        Raises:
            ValueError: for a rate that lets nobody in.
        """
        from kshot.demo.limits import Limits

        if not self.rate > 0:
            raise ValueError(f"--rate must be above 0, not {self.rate}.")
        return Limits(rate=self.rate, burst=max(3, round(3 * self.rate)))


def need_server() -> None:
    """Say what to install where there is no server.

    Raises:
        ImportError: without Starlette or uvicorn.
    """
    missing = missing_modules("demo")
    if missing:
        raise ImportError(
            f"This command needs {' and '.join(missing)}: {install_command(*missing)}."
        )

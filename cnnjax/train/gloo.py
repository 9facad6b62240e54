"""At which address the CPU devices of several processes exchange their numbers, by Gloo.

JAX takes what the host's name stands for: on Debian and Ubuntu 127.0.1.1, which no other host
reaches, in a container often nothing. It has no option for that, so its private names are used
here, of JAX 0.10 to 0.12, and nowhere else.
"""

from __future__ import annotations

from typing import Any


def listen_at(address: str) -> None:
    """Have the CPU devices, once they are made, exchange at `address`, an address of this host.

    To be called after jax.distributed.initialize() and before the first array.
    """
    from jax._src import config, distributed, xla_bridge
    from jax._src.lib import _jax

    if config.cpu_collectives_implementation.value != "gloo":
        return

    def make_client() -> Any:
        client = distributed.global_state.client
        exchange = _jax.make_gloo_tcp_collectives(distributed_client=client, hostname=address)
        return xla_bridge.make_cpu_client(exchange)

    xla_bridge.register_backend_factory("cpu", make_client, fail_quietly=False)

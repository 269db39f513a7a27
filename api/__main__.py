"""Run the API with the settings of the environment: `python -m api`."""

import gc
import sys
from contextlib import suppress

import uvicorn

from api.http.connections import Limits, Server, affordable, bounded, raise_descriptors
from api.main import create_app, serve
from shared.config.settings import get_settings
from shared.observability.logs import configure_logging
from shared.observability.tracing import missing_package
from shared.scoring.threads import prefer_one_thread
from shared.startup.checks import CannotStart, check_port, check_start


def main() -> None:
    """Serve until SIGTERM or SIGINT."""
    settings = get_settings()
    configure_logging(settings.log_level, form=settings.log_format)
    prefer_one_thread()  # before the sync runtime loads a model
    check_port(settings)
    if settings.tracing == "otlp" and (missing := missing_package()) is not None:
        raise CannotStart(missing)
    check_start(settings, needs_broker=False)  # without Redis, jobs are stored all the same
    app = serve(create_app(settings))
    # What was loaded so far lives as long as the process: the collector need not walk it on every pass.
    gc.collect()
    gc.freeze()
    config = uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        loop="uvloop",
        http=bounded(Limits(connections=affordable(settings.max_connections, raise_descriptors()))),
        ws="none",
        access_log=False,
        log_config=None,
        server_header=False,
        proxy_headers=False,  # PROXY_HOPS says whose word on the caller's address is taken (api/auth/rate_limit.py)
        timeout_keep_alive=75,
        timeout_graceful_shutdown=5,
    )
    server = Server(config)
    with suppress(KeyboardInterrupt):  # raised once more after the server has stopped in good order
        server.run()
    if not server.started:
        sys.exit(3)


if __name__ == "__main__":
    main()

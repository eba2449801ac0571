"""`vaearr run` and `vaearr serve`: flows by name, on a Prefect server where one is configured, else right here."""

from __future__ import annotations

import asyncio
import inspect
import signal
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
from prefect import Flow
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import LogFilter, LogFilterFlowRunId
from prefect.client.schemas.sorting import LogSort
from prefect.deployments.runner import EntrypointType
from prefect.exceptions import ObjectNotFound
from prefect.runner import Runner
from prefect.settings import get_current_settings
from pydantic import create_model

from vaearr.config import Config, group_of, over, resolved
from vaearr.errors import NoInputError, UsageError, VaearrError, did_you_mean

from . import steps
from .running import log, place

FLOWS = {found.name: found for found in vars(steps).values() if isinstance(found, Flow)}  # as their deployments
HOW = (
    "start one with 'PREFECT_SERVER_ANALYTICS_ENABLED=false prefect server start --host 127.0.0.1' and name it with "
    "'export PREFECT_API_URL=http://127.0.0.1:4200/api'"
)
POLL, LAST_LINES = 1.0, 2.5  # s
PAGE = 200  # log lines at a time
TRACEBACK = "\nTraceback "  # is for the server's pages


def flow_name(text: str) -> str:
    """The name that is meant by `train-vae` or `train-vae/train-vae`. Raises UsageError, naming all, for another."""
    name, _, deployment = text.partition("/")
    if name not in FLOWS or (deployment and deployment != name):
        raise UsageError(f"there is no flow {text!r}.{did_you_mean(name, list(FLOWS))}")
    return name


def run(name: str, parameters: dict[str, Any], *, watch: bool = False, here: bool = False) -> None:
    """Run a flow by name: as its deployment on the configured Prefect server, else in this process.

    Without a configured server, or with `here`, the flow's functions are called one after the other and no server is
    started. With a server that does not know the deployment, the flow runs in this process and the server records it.
    watch: follow a deployment's run to its end. Raises UsageError for unknown names or parameters, NoInputError for a
    configured server that cannot be reached, VaearrError for a watched run that did not complete.
    """
    flow, url = FLOWS[flow_name(name)], None if here else api_url()
    if url is None:
        checked = validated(flow, parameters)
        log.info(f"{flow.name}: running here, without a Prefect server")
        flow.fn(**checked)
        return
    try:
        with reached(url) as client:
            deployment: Any = None
            with suppress(ObjectNotFound):
                deployment = client.read_deployment_by_name(f"{flow.name}/{flow.name}")
            if deployment is not None:
                checked = validated(flow, over(dict(deployment.parameters), parameters))
                _submit(client, deployment, {key: submittable(value) for key, value in checked.items()}, watch)
                return
        checked = validated(flow, parameters)
        log.info(f"{flow.name}: {url} has no deployment of it ('vaearr serve' makes one); running here, recorded there")
        flow(**checked)
    except httpx.TransportError as error:
        raise NoInputError(
            f"the Prefect server at {url} went away while {flow.name!r} ran ({type(error).__name__}). What is complete "
            "is in the store, and the same command goes on; 'vaearr run --here' does without a server."
        ) from None


def api_url() -> str | None:
    """The configured Prefect server: PREFECT_API_URL, or the one of Prefect's profile."""
    url = get_current_settings().api.url
    return str(url) if url else None


@contextmanager
def reached(url: str) -> Iterator[SyncPrefectClient]:
    """A client of the server. Raises NoInputError, saying how one is started, where it does not answer."""
    error = get_client(sync_client=True).api_healthcheck()  # a client that is entered asks the server for its version
    if error is not None:
        raise NoInputError(
            f"the Prefect server at {url} cannot be reached ({type(error).__name__}); {HOW}, or run without one: "
            "'vaearr run --here'."
        )
    with get_client(sync_client=True) as client:
        yield client


def validated(flow: Any, parameters: dict[str, Any]) -> dict[str, Any]:
    """Parameters of a flow as the types it takes. Raises UsageError that names each wrong one.

    Single settings go over those that the flow sets otherwise, such as p-values in analyse-scan.
    """
    known = inspect.signature(flow.fn, eval_str=True).parameters
    types: Any = {name: (p.annotation, ... if p.default is p.empty else p.default) for name, p in known.items()}
    form, values = create_model(f"flow {flow.name}", __base__=Config, **types), dict(parameters)
    for name, value in parameters.items():
        kind = group_of(form.model_fields.get(name))
        if kind is not None and isinstance(value, Mapping):
            default = known[name].default
            values[name] = resolved(kind, default if isinstance(default, kind) else None, value)
    made = form.from_attrs(values)
    return {name: getattr(made, name) for name in parameters}


def submittable(value: Any) -> Any:
    """A value as JSON; paths as seen from where the command was given, since the flow runs elsewhere; URLs as URLs."""
    if isinstance(value, Path):
        return place(value)
    if isinstance(value, Config):
        return {name: submittable(getattr(value, name)) for name in sorted(value.model_fields_set)}
    if isinstance(value, dict):
        return {key: submittable(item) for key, item in value.items()}
    return [submittable(item) for item in value] if isinstance(value, list | tuple) else value


def _submit(client: SyncPrefectClient, deployment: Any, parameters: dict[str, Any], watch: bool) -> None:
    made = client.create_flow_run_from_deployment(deployment.id, parameters=parameters)
    page = get_current_settings().ui_url
    where = f", {page}/runs/flow-run/{made.id}" if page else ""
    log.info(f"{deployment.name}: submitted to {api_url()} as flow run {made.name!r}{where}")
    if deployment.paused or str(deployment.status or "").upper().endswith("NOT_READY"):
        log.info("nothing serves this deployment at the moment: start 'vaearr serve' or a worker")
    if watch:
        _watch(client, made)


def _watch(client: SyncPrefectClient, run: Any) -> None:
    """Tell the log lines and states of a flow run until it has ended. Raises VaearrError unless it completed."""
    only = LogFilter(flow_run_id=LogFilterFlowRunId(any_=[run.id]))
    told, last, is_over = 0, "", False
    try:
        while True:
            state: Any = client.read_flow_run(run.id).state
            while lines := client.read_logs(only, PAGE, told, LogSort.TIMESTAMP_ASC):
                for line in lines:
                    log.info(f"{line.timestamp:%H:%M:%S}  {line.message.partition(TRACEBACK)[0]}")
                told += len(lines)
            if state.name != last:
                last = str(state.name)
                log.info(f"flow run {run.name!r}: {last}")
            if is_over:
                break
            is_over = state.is_final()  # its last lines are on their way
            time.sleep(LAST_LINES if is_over else POLL)
    except (KeyboardInterrupt, SystemExit):
        log.info(f"no longer watching; flow run {run.name!r} goes on")
        raise
    if not state.is_completed():
        raise VaearrError(f"flow run {run.name!r} ended as {last}: {state.message or 'no message'}")


def serve(names: list[str] | None = None, *, limit: int = 1) -> None:
    """Register the deployments of all flows (or of those named) and run what is asked of them, until stopped.

    Each flow run is a process of its own, at most `limit` at a time. SIGTERM and Ctrl-C end it: runs under way are
    cancelled, the deployments paused. Raises NoInputError where no server is configured or it cannot be reached.
    """
    url, chosen = api_url(), list(dict.fromkeys(flow_name(name) for name in names or FLOWS))
    if url is None:
        raise NoInputError(f"no Prefect server is configured; {HOW}.")
    if limit < 1:
        raise UsageError(f"limit is {limit}; it must be 1 or more.")
    with reached(url):
        pass
    runner = _Runner(limit=limit, pause_on_shutdown=True)
    for name in chosen:
        how: Any = {"entrypoint_type": EntrypointType.MODULE_PATH, "tags": ["vaearr"]}
        made: Any = FLOWS[name].to_deployment(name, **how)  # a coroutine in asynchronous code only
        runner.add_deployment(made)
    log.info(f"serving {', '.join(chosen)} for {url}; Ctrl-C ends it")
    signal.signal(signal.SIGINT, signal.default_int_handler)  # what asyncio ends its loop by
    with suppress(KeyboardInterrupt):
        asyncio.run(runner.start())
    log.info("no longer serving; runs under way were cancelled, the same call goes on with them")


class _Runner(Runner):
    """Prefect's, which ends on SIGTERM as it does on Ctrl-C, and takes the flow runs under way with it."""

    def handle_sigterm(self, *args: Any, **kwargs: Any) -> None:
        signal.raise_signal(signal.SIGINT)

    async def __aexit__(self, *exc_info: Any) -> None:
        await self.cancel_all()
        await super().__aexit__(*exc_info)

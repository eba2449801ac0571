"""`vaearr run` and `vaearr serve`: flows by name, on a Prefect server where one is configured, else right here."""

from __future__ import annotations

import asyncio
import inspect
import signal
import time
import typing
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any, TypeVar
from uuid import UUID

import httpx
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import LogFilter, LogFilterFlowRunId
from prefect.client.schemas.sorting import LogSort
from prefect.deployments.runner import EntrypointType
from prefect.exceptions import ObjectNotFound
from prefect.runner import Runner
from prefect.settings import get_current_settings
from pydantic import TypeAdapter, ValidationError

from vaearr.config import Config, over, resolved
from vaearr.errors import NoInputError, UsageError, VaearrError, did_you_mean

from .running import place, plainly

FLOWS = {  # by name, which is that of its deployment too; imported when asked for
    "ingest": "steps.ingest_flow",
    "train-vae": "steps.train_flow",
    "encode": "steps.encode_flow",
    "embed": "steps.embed_flow",
    "associate": "steps.associate_flow",
    "cluster": "steps.cluster_flow",
    "report": "steps.report_flow",
    "analyse-scan": "steps.analyse_scan",
    "sweep": "sweep.sweep_flow",
    "analyse-many": "many.analyse_many",
}
HOW = (
    "start one with 'PREFECT_SERVER_ANALYTICS_ENABLED=false prefect server start --host 127.0.0.1' and name it with "
    "'export PREFECT_API_URL=http://127.0.0.1:4200/api'"
)
POLL, LAST_LINES, AWAY = 1.0, 2.5, 120.0  # s
PAGE = 200  # log lines at a time
TRACEBACK = "\nTraceback "  # is for the server's pages
Say = Callable[[str], None]
T = TypeVar("T")


def flow_name(text: str) -> str:
    """The name that is meant by `train-vae` or `train-vae/train-vae`. Raises UsageError, naming all, for another."""
    name, _, deployment = text.partition("/")
    if name not in FLOWS or (deployment and deployment != name):
        raise UsageError(f"there is no flow {text!r}.{did_you_mean(name, list(FLOWS))}")
    return name


def load_flow(text: str) -> Any:
    """The Prefect flow of that name."""
    module, _, function = FLOWS[flow_name(text)].partition(".")
    return getattr(import_module(f"vaearr.flows.{module}"), function)


def run(
    name: str,
    parameters: dict[str, Any],
    *,
    watch: bool = False,
    here: bool = False,
    say: Say,
    bar: Callable[[str], Any] | None = None,
) -> None:
    """Run a flow by name: as its deployment on the configured Prefect server, else in this process.

    Without a configured server, or with `here`, the flow's functions are called one after the other and no server is
    started. With a server that does not know the deployment, the flow runs in this process and the server records it.
    watch: follow a deployment's run to its end. Raises UsageError for unknown names or parameters, NoInputError for a
    configured server that cannot be reached, VaearrError for a watched run that did not complete.
    """
    flow = load_flow(name)
    url = None if here else api_url()
    if url is None:
        checked = validated(flow, parameters)
        say(f"{flow.name}: running here, without a Prefect server")
        with plainly(say, bar):
            flow.fn(**checked)
        return
    with reached(url) as client:
        deployment = _deployment(client, f"{flow.name}/{flow.name}")
        if deployment is not None:
            checked = validated(flow, over(dict(deployment.parameters), parameters))
            given = {key: submittable(value) for key, value in checked.items()}
            _submit(client, deployment, given, watch, say)
            return
    checked = validated(flow, parameters)
    say(f"{flow.name}: {url} has no deployment of it ('vaearr serve' makes one); running here, recorded there")
    try:
        flow(**checked)
    except httpx.TransportError as error:
        raise NoInputError(
            f"the Prefect server at {url} went away while {flow.name!r} ran ({type(error).__name__}). What is complete "
            "is in the store, and the same command goes on; 'vaearr run --here' does without a server."
        ) from None


def _deployment(client: SyncPrefectClient, name: str) -> Any:
    try:
        return client.read_deployment_by_name(name)
    except ObjectNotFound:
        return None


def api_url() -> str | None:
    """The configured Prefect server: PREFECT_API_URL, or the one of Prefect's profile."""
    url = get_current_settings().api.url
    return str(url) if url else None


@contextmanager
def reached(url: str) -> Iterator[SyncPrefectClient]:
    """A client of the server. Raises NoInputError, saying how one is started, where it does not answer."""
    client: SyncPrefectClient = get_client(sync_client=True)
    error = client.api_healthcheck()  # before it is entered, which asks the server for its version
    if error is not None:
        raise NoInputError(
            f"the Prefect server at {url} cannot be reached ({type(error).__name__}); {HOW}, or run without one: "
            "'vaearr run --here'."
        )
    with get_client(sync_client=True) as client:
        yield client


def validated(flow: Any, parameters: dict[str, Any]) -> dict[str, Any]:
    """Parameters of a flow as the types it takes. Raises UsageError that names each wrong one."""
    known = inspect.signature(flow.fn, eval_str=True).parameters
    for name in parameters:
        if name not in known:
            raise UsageError(f"the flow {flow.name!r} has no parameter {name!r}.{did_you_mean(name, list(known))}")
    lacking = [name for name, p in known.items() if p.default is p.empty and name not in parameters]
    if lacking:
        raise UsageError(f"the flow {flow.name!r} needs {', '.join(lacking)}: -p {lacking[0]}=VALUE.")
    return {name: _typed(known[name], value) for name, value in parameters.items()}


def _typed(parameter: inspect.Parameter, value: Any) -> Any:
    """A value as its type; settings over those that the flow sets otherwise, such as p-values in analyse-scan."""
    parts = (parameter.annotation, *typing.get_args(parameter.annotation))
    kind = next((part for part in parts if isinstance(part, type) and issubclass(part, Config)), None)
    if kind is not None and isinstance(value, dict):
        return resolved(kind, parameter.default if isinstance(parameter.default, kind) else None, value)
    try:
        return TypeAdapter(parameter.annotation).validate_python(value)
    except ValidationError as error:
        said = [
            f"{'.'.join(map(str, (parameter.name, *item['loc'])))}: {item['msg']} (got {item['input']!r})"
            for item in error.errors()
        ]
        raise UsageError(f"{'; '.join(said)}.") from None


def submittable(value: Any) -> Any:
    """A value as JSON; paths as seen from where the command was given, since the flow runs elsewhere; URLs as URLs."""
    if isinstance(value, Path):
        return place(value)
    if isinstance(value, Config):
        return {name: submittable(getattr(value, name)) for name in sorted(value.model_fields_set)}
    if isinstance(value, dict):
        return {key: submittable(item) for key, item in value.items()}
    return [submittable(item) for item in value] if isinstance(value, list | tuple) else value


def _submit(client: SyncPrefectClient, deployment: Any, parameters: dict[str, Any], watch: bool, say: Say) -> None:
    made = client.create_flow_run_from_deployment(deployment.id, parameters=parameters)
    page = get_current_settings().ui_url
    where = f", {page}/runs/flow-run/{made.id}" if page else ""
    say(f"{deployment.name}: submitted to {api_url()} as flow run {made.name!r}{where}")
    if deployment.paused or str(deployment.status or "").upper().endswith("NOT_READY"):
        say("nothing serves this deployment at the moment: start 'vaearr serve' or a worker")
    if watch:
        _watch(client, made.id, made.name, say)


def _watch(client: SyncPrefectClient, run_id: UUID, name: str, say: Say) -> None:
    """Tell the log lines and states of a flow run until it has ended. Raises VaearrError unless it completed."""
    only = LogFilter(flow_run_id=LogFilterFlowRunId(any_=[run_id]))
    told, last, is_over = 0, "", False
    try:
        while True:
            state = answer_of(lambda: client.read_flow_run(run_id)).state
            while lines := answer_of(partial(client.read_logs, only, PAGE, told, LogSort.TIMESTAMP_ASC)):
                for line in lines:
                    say(f"{line.timestamp:%H:%M:%S}  {line.message.partition(TRACEBACK)[0]}")
                told += len(lines)
            if state is not None and state.name != last:
                last = str(state.name)
                say(f"flow run {name!r}: {last}")
            if is_over:
                break
            is_over = state is not None and state.is_final()  # its last lines are on their way
            time.sleep(LAST_LINES if is_over else POLL)
    except (KeyboardInterrupt, SystemExit):
        say(f"no longer watching; flow run {name!r} goes on")
        raise
    if state is None or not state.is_completed():
        raise VaearrError(f"flow run {name!r} ended as {last}: {(state and state.message) or 'no message'}")


def answer_of(ask: Callable[[], T]) -> T:
    """What a server answers that may be away for a while, such as when it is started anew. Raises NoInputError."""
    end = time.monotonic() + AWAY
    while True:
        try:
            return ask()
        except httpx.TransportError as error:
            if time.monotonic() > end:
                raise NoInputError(
                    f"the Prefect server at {api_url()} has not answered for {AWAY:.0f} s ({type(error).__name__}). "
                    "The flow run may go on without it; start the server again and look at its pages."
                ) from None
            time.sleep(POLL)


def serve(names: list[str] | None = None, *, limit: int = 1, say: Say) -> None:
    """Register the deployments of all flows (or of those named) and run what is asked of them, until stopped.

    Each flow run is a process of its own, at most `limit` at a time. SIGTERM and Ctrl-C end it: runs under way are
    cancelled, the deployments paused. Raises NoInputError where no server is configured or it cannot be reached.
    """
    url = api_url()
    if url is None:
        raise NoInputError(f"no Prefect server is configured; {HOW}.")
    if limit < 1:
        raise UsageError(f"limit is {limit}; it must be 1 or more.")
    chosen = [flow_name(name) for name in names or FLOWS]
    with reached(url):
        pass
    deployments = [
        load_flow(name).to_deployment(
            name, entrypoint_type=EntrypointType.MODULE_PATH, tags=["vaearr"], description=_description(name)
        )
        for name in dict.fromkeys(chosen)
    ]
    runner = _Runner(limit=limit, pause_on_shutdown=True)
    for deployment in deployments:
        runner.add_deployment(deployment)
    say(f"serving {', '.join(dict.fromkeys(chosen))} for {url}; Ctrl-C ends it")
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    signal.signal(signal.SIGINT, signal.default_int_handler)  # what asyncio ends its loop by
    try:
        asyncio.run(runner.start())
    except KeyboardInterrupt:
        say("no longer serving; runs under way were cancelled, the same call goes on with them")
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class _Runner(Runner):
    """Prefect's, which ends on SIGTERM as it does on Ctrl-C, and takes the flow runs under way with it."""

    def handle_sigterm(self, *args: Any, **kwargs: Any) -> None:
        signal.raise_signal(signal.SIGINT)

    async def __aexit__(self, *exc_info: Any) -> None:
        await self.cancel_all()
        await super().__aexit__(*exc_info)


def _description(name: str) -> str:
    return (inspect.getdoc(load_flow(name).fn) or "").partition("\n\nArgs:")[0]

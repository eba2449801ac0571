"""Flows by name, with parameters given as text: what `vaearr run` calls."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from prefect import Flow
from prefect.client.orchestration import get_client
from prefect.settings import get_current_settings
from pydantic import create_model

from vaearr.config import Config, group_of, resolved
from vaearr.errors import NoInputError, UsageError, did_you_mean

from . import steps
from .running import log

FLOWS = {flow.name: flow for flow in vars(steps).values() if isinstance(flow, Flow)}


def run(name: str, parameters: dict[str, Any]) -> None:
    """Run a flow in this process.

    Where a Prefect server is configured (PREFECT_API_URL, or Prefect's profile), it records the
    run; else the flow's functions are called one after the other, and no server is started.

    Raises
    ------
    UsageError
        For an unknown flow, and for parameters that the flow does not take.
    NoInputError
        For a configured server that does not answer.
    """
    if name not in FLOWS:
        raise UsageError(f"there is no flow {name!r}.{did_you_mean(name, list(FLOWS))}")
    flow = FLOWS[name]
    checked = validated(flow, parameters)
    url = get_current_settings().api.url
    if not url:
        log.info(f"{name}: running here, without a Prefect server")
        flow.fn(**checked)
        return
    error = get_client(sync_client=True).api_healthcheck()
    if error is not None:
        raise NoInputError(
            f"the Prefect server at {url} cannot be reached ({type(error).__name__}); start it "
            "with 'prefect server start', or run without one: unset PREFECT_API_URL."
        )
    log.info(f"{name}: running here, recorded by {url}")
    flow(**checked)


def validated(flow: Any, parameters: dict[str, Any]) -> dict[str, Any]:
    """Convert parameters of a flow to the types it takes. Raises UsageError that names each wrong
    one.

    Single settings replace those that the flow sets otherwise, such as p-values in analyse-scan.
    """
    flow_parameters = inspect.signature(flow.fn, eval_str=True).parameters
    fields: dict[str, Any] = {}
    for name, parameter in flow_parameters.items():
        is_required = parameter.default is parameter.empty
        fields[name] = (parameter.annotation, ... if is_required else parameter.default)
    form = create_model(f"flow {flow.name}", __base__=Config, **fields)
    values = dict(parameters)
    for name, value in parameters.items():
        settings = group_of(form.model_fields.get(name))
        if settings is not None and isinstance(value, Mapping):
            default = flow_parameters[name].default
            values[name] = resolved(
                settings, default if isinstance(default, settings) else None, value
            )
    checked = form.from_attrs(values)
    return {name: getattr(checked, name) for name in parameters}

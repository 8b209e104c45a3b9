"""`spice prove`: whether training on a selection gives a better model, with an exit status for pipelines."""

from __future__ import annotations

from enum import IntEnum
from importlib.util import find_spec
from pathlib import Path  # noqa: TC003 - Typer reads the annotations
from typing import TYPE_CHECKING, Annotated, Any

import typer

from spice_client.cli.console import print_table
from spice_client.cli.exit_codes import ExitCode
from spice_client.cli.failure import refusal, show_problem
from spice_client.cli.ids import whole_id
from spice_client.cli.options import URL, ApiKey, AsJson, Budget, DatasetName, ModelName, Url, WaitS, echo_json, service
from spice_client.cli.request import RequestFlags, build_proof_request
from spice_client.mlflow_logging import log_proof

if TYPE_CHECKING:
    from spice_client.client import SpiceClient
    from spice_client.models import Proof, ProofComparison

PATIENCE_S = 60.0
INTERRUPTED = 130


class ProofExit(IntEnum):
    """Exit status of `spice prove`, where it is not that of every command."""

    GOOD = 0
    FAILED = 1
    WORSE = 3
    NOT_ENOUGH_RUNS = 4
    UNREACHABLE = 5


def prove(  # noqa: PLR0913 - one parameter for each flag
    request: Annotated[
        str | None, typer.Argument(metavar="PROOF.json", help="The request; `-` reads stdin.", show_default=False)
    ] = None,
    *,
    job: Annotated[str | None, typer.Option(help="The selection job to prove; instead of dataset and model.")] = None,
    dataset: DatasetName = None,
    model: ModelName = None,
    budget: Budget = None,
    seeds: Annotated[int | None, typer.Option(min=2, help="Runs of each arm.")] = None,
    arm: Annotated[str, typer.Option(help="The arm whose verdicts decide the exit status.")] = "selected",
    setting: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="PATH=VALUE", help="Any field, as in `training.epochs=1`."),
    ] = None,
    report: Annotated[Path | None, typer.Option(help="Save the report, one HTML file, here.")] = None,
    mlflow: Annotated[
        bool, typer.Option("--mlflow", help="Also log the proof to the MLflow server of MLFLOW_TRACKING_URI.")
    ] = False,
    every: Annotated[float, typer.Option(min=0.1, help="Seconds between two looks.")] = 2.0,
    patience: WaitS = PATIENCE_S,
    url: Url = URL,
    api_key: ApiKey = None,
    as_json: AsJson = False,
) -> None:
    """Prove a selection: train on it and on other rows, compare on held-out rows, and print what came of it.

    Exit status: 0 better or equivalent by all metrics, 3 worse by any, 4 not enough runs; 1 the proof failed or was
    cancelled, 2 wrong usage or refused, 5 the service cannot be reached or is out of order.
    """
    if mlflow and find_spec("mlflow") is None:
        raise refusal("Wrong usage", "--mlflow needs MLflow: pip install '.[mlflow]' in the repository")
    flags = RequestFlags(dataset, model, budget, None, [], setting or [])
    body_flags = {**({} if job is None else {"job": job}), **({} if seeds is None else {"seeds": seeds})}
    try:
        with service(url, api_key, patience_s=patience, from_the_start=True, as_json=as_json) as client:
            if job is not None:
                body_flags["job"] = whole_id(client, job)
            body = build_proof_request(request, flags, body_flags)
            proof = _followed(client, body, every, as_json=as_json)
            if report is not None and proof.state == "succeeded":
                client.proofs.report(proof, report)
            if mlflow and proof.state == "succeeded":
                typer.echo(f"MLflow run {log_proof(proof, report)}", err=True)
            _print(proof, as_json=as_json)
            status = exit_of(proof, arm)
    except typer.Exit as ended:
        if ended.exit_code is ExitCode.UNREACHABLE:
            raise typer.Exit(ProofExit.UNREACHABLE) from None
        raise
    raise typer.Exit(status)


def exit_of(proof: Proof, arm: str) -> ProofExit:
    """What the verdicts on an arm come to: the worst of all metrics decides.

    Raises:
        CommandFailedError: The proof compares no such arm.
    """
    if proof.state != "succeeded":
        return ProofExit.FAILED
    verdicts = {one.verdict for one in proof.comparisons if one.arm == arm}
    if not verdicts:
        known = ", ".join(dict.fromkeys(one.arm for one in proof.comparisons)) or "none"
        raise refusal("There is no such arm", f"--arm {arm}: the proof compares {known}")
    if "worse" in verdicts:
        return ProofExit.WORSE
    return ProofExit.NOT_ENOUGH_RUNS if "not_enough_runs" in verdicts else ProofExit.GOOD


def _print(proof: Proof, *, as_json: bool) -> None:
    if as_json:
        echo_json(proof.document())
    elif proof.state == "succeeded":
        show_proof(proof)
    else:
        show_problem(proof.error.document() if proof.error else {"title": f"The proof is {proof.state}"})


def show_proof(proof: Proof) -> None:
    """Write the comparisons of a proof to stdout, a table for each arm compared against, and what is to be known."""
    typer.echo(f"proof {proof.id}")
    for against in dict.fromkeys(one.against for one in proof.comparisons):
        typer.echo(f"against {against}")
        rows = [_row(one) for one in proof.comparisons if one.against == against]
        print_table(("ARM", "METRIC", "DIFFERENCE", "95%", "VERDICT"), rows, cut="ARM,METRIC", right="DIFFERENCE")
    for one in proof.comparisons:
        if one.runs_needed is not None:
            typer.echo(f"{one.arm} against {one.against} by {one.metric}: {one.runs_needed} seeds would be enough")
    for note in proof.notes:
        typer.echo(note)


def _row(one: ProofComparison) -> tuple[str, ...]:
    return (
        one.arm,
        one.metric,
        "" if one.difference is None else f"{one.difference:+.4f}",
        "" if one.interval is None else f"{one.interval[0]:+.4f} to {one.interval[1]:+.4f}",
        one.verdict,
    )


def _followed(client: SpiceClient, body: dict[str, Any], every: float, *, as_json: bool) -> Proof:
    submitted = client.proofs.submit(body)
    if not as_json:
        typer.echo(f"proof {submitted.id}", err=True)
    shown = ""

    def show(proof: Proof) -> None:
        nonlocal shown
        line = f"{proof.state} {proof.stage or ''} {proof.progress.line() if proof.progress else ''}".strip()
        if line != shown and not as_json:
            shown = line
            typer.echo(line, err=True)

    try:
        return client.proofs.wait(submitted, every=every, show=show, check=False)
    except KeyboardInterrupt:
        typer.echo(f"The proof goes on; to see how far it is: GET /proofs/{submitted.id}", err=True)
        raise typer.Exit(INTERRUPTED) from None

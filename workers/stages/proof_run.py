"""One run of a proof: train an adapter on an arm's rows, score the held-out rows, keep the scores."""

from __future__ import annotations

import logging
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from app.core.contracts.proof_plan import ProofPlan
from app.core.contracts.proof_request import Choice, ExactMatch, ProofRequest
from app.core.contracts.proof_result import RunOutcome
from app.core.db.tables import Job, Proof, ProofRun, State
from app.core.lifecycle import leases, proofs
from app.core.storage import arms_name, held_out_name, run_outcome_name, run_prefix
from workers.models.memory import Work
from workers.runtime.context import current_context
from workers.runtime.failures import JobError
from workers.runtime.task import run_leased
from workers.stages.proof import proof_source
from workers.stages.proof_files import HeldOutRows, arm_key, read_arm, read_outcome, write_outcome
from workers.stages.reading import model_directory, read
from workers.training.checkpoints import Checkpoints
from workers.training.lora import with_lora
from workers.training.scoring import Passes
from workers.training.steps import rows_of_steps
from workers.training.trainer import LossNotFinite, TrainingPlan, train

if TYPE_CHECKING:
    import uuid

    from numpy.typing import NDArray
    from peft import PeftModel
    from transformers import PreTrainedTokenizerBase

    from workers.data.corpus import Corpus
    from workers.models.proxy import ProxyModel
    from workers.runtime.context import WorkerContext
    from workers.runtime.heartbeat import LeaseHeartbeat
    from workers.training.trainer import Trained

logger = logging.getLogger(__name__)


def run_proof_run(run_id: str, dispatch: int) -> None:
    """The queue's entry: carry a run out, and wake its proof if it was the last."""
    context = current_context()
    with context.sessions() as session:
        run = session.get(ProofRun, run_id)
    if run is None:
        logger.info("proof run %s: its proof is gone", run_id)
        return
    proof_id = run.proof_id
    run_leased(
        context,
        ProofRun,
        run_id,
        dispatch,
        lambda heartbeat: _Run(context, heartbeat, proof_id).run(),
        worker=context.name,
    )
    with context.sessions() as session:
        woken = proofs.wake(session, proof_id=proof_id)
    context.queue.put_or_leave(woken)


class _Run:
    """One worker's hold on a run."""

    def __init__(self, context: WorkerContext, heartbeat: LeaseHeartbeat, proof_id: uuid.UUID) -> None:
        self.context, self.heartbeat = context, heartbeat
        with context.sessions() as session:
            self.row = session.get_one(ProofRun, heartbeat.lease.id)
            proof = session.get_one(Proof, proof_id)
            job = None if proof.job_id is None else session.get(Job, proof.job_id)
        self.proof_id = proof_id
        self.request = ProofRequest.model_validate(proof.request)
        self.plan = ProofPlan.model_validate(proof.plan)
        self.job = job

    def run(self) -> None:
        """Do it, or find it done."""
        name = run_outcome_name(self.row.key)
        kept = read_outcome(self.context.artifacts, name)
        if kept is not None and (self._has_adapter() or not self.request.training.keep_adapters):
            self._finish(kept[0], reused=True)
            return
        outcome, scores = self._carried_out()
        write_outcome(self.context.artifacts, name, outcome, scores)
        self._checkpoints().drop()
        self._finish(outcome, reused=False)

    def _carried_out(self) -> tuple[RunOutcome, dict[str, NDArray[np.float64]]]:
        began = time.monotonic()
        if self.job is None:
            raise JobError("job-gone", "The proof's job is gone", "job", "it was deleted: submit the proof again")
        source = proof_source(self.context, self.job)
        corpus = self.context.corpus
        if corpus is None or corpus.digest != self.plan.corpus:
            corpus = self.context.corpus = read(self.context, source, self.heartbeat.should_stop).corpus
        if corpus.digest != self.plan.corpus:
            raise JobError(
                "tokens-differ",
                "Workers disagree about the samples",
                "dataset",
                f"{self.context.name} reads other tokens than the worker that planned the proof: run one version of "
                "the service",
            )
        held_out = HeldOutRows.read(self.context.artifacts, held_out_name(self.proof_id))
        arm = next((arm for arm in self.plan.arms if arm.name == self.row.arm), None)
        drawn = arm is not None and arm.drawn
        places = read_arm(
            self.context.artifacts, arms_name(self.proof_id), arm_key(self.row.arm, self.row.seed, drawn=drawn)
        )
        path = model_directory(self.context, source.model, source.request.model.dtype, self.heartbeat.should_stop)
        proxy = self.context.model(
            path, source.request.model.dtype, Work(corpus.longest()[1]), spread=source.request.model.devices == "all"
        )
        if proxy.revision != self.plan.model:
            raise JobError(
                "model-changed",
                "The model has changed",
                "model.uri",
                f"is another revision on {self.context.name} than the proof began with: submit again",
            )
        try:
            trained, scores = self._trained_and_scored(proxy, corpus, places, held_out)
        except LossNotFinite as error:
            raise self._not_finite(str(error)) from error
        outcome = RunOutcome(
            metrics={metric: float(values.mean()) for metric, values in scores.items()},
            rows=len(places),
            tokens=int(corpus.lengths[places].sum()),
            steps=self.row.steps if len(places) else 0,
            trained_tokens=0 if trained is None else trained.tokens,
            train_loss=None if trained is None else trained.loss,
            seconds=round(time.monotonic() - began, 3),
            halvings=0 if trained is None else trained.halvings,
            resumed_at=None if trained is None else trained.resumed_at,
        )
        return outcome, scores

    def _trained_and_scored(
        self, proxy: ProxyModel, corpus: Corpus, places: NDArray[np.int64], held_out: HeldOutRows
    ) -> tuple[Trained | None, dict[str, NDArray[np.float64]]]:
        if not len(places):
            return None, self._scores(proxy, held_out)
        with with_lora(proxy.model, rank=self.request.training.rank, seed=self.row.seed) as adapted:
            trained = self._train(adapted, corpus, places)
            scores = self._scores(proxy, held_out)
            if self.request.training.keep_adapters:
                self._keep(adapted)
        return trained, scores

    def _train(self, adapted: PeftModel, corpus: Corpus, places: NDArray[np.int64]) -> Trained:
        training = self.request.training
        local = rows_of_steps(len(places), epochs=training.epochs, steps=self.row.steps, seed=self.row.seed)
        plan = TrainingPlan(
            batches=[places[batch] for batch in local],
            learning_rate=training.learning_rate,
            seed=self.row.seed,
            piece_tokens=self.context.settings.token_budget,
            checkpoint_s=self.context.settings.proof_checkpoint_s,
        )
        meter = self.heartbeat.begin(len(plan.batches), "steps")

        def on_step(step: int, tokens: int) -> None:
            meter.add(0, tokens=tokens)
            meter.at(step)

        return train(
            adapted,
            corpus,
            plan,
            checkpoints=self._checkpoints(),
            scratch=self._scratch(),
            on_step=on_step,
            should_stop=self.heartbeat.should_stop,
        )

    def _scores(self, proxy: ProxyModel, held_out: HeldOutRows) -> dict[str, NDArray[np.float64]]:
        """Scores by metric. The loss is always among them: the premise needs it."""
        passes = Passes(proxy.model, self.context.settings.token_budget, self.heartbeat.should_stop)
        scores = {"loss": passes.losses_per_token(held_out.samples)}
        for metric in self.request.metrics:
            if isinstance(metric, ExactMatch):
                scores[metric.name] = passes.exact_matches(held_out.samples, self._tokenizer(proxy), metric.max_tokens)
            elif isinstance(metric, Choice):
                item = np.unique(held_out.option_item, return_inverse=True)[1].astype(np.int64)
                scores[metric.name] = passes.choices(held_out.options, item, held_out.option_right)
        if not np.isfinite(scores["loss"]).all():
            raise self._not_finite("the loss of a held-out row is not a finite number")
        return scores

    def _tokenizer(self, proxy: ProxyModel) -> PreTrainedTokenizerBase:
        return proxy.tokenizer

    def _not_finite(self, said: str) -> JobError:
        return JobError(
            "loss-not-finite",
            "The loss is not a finite number",
            "training.learning_rate",
            f"arm {self.row.arm}, seed {self.row.seed}: {said}",
        )

    def _keep(self, adapted: PeftModel) -> None:
        """Put the adapter's files into the store; the weights last, by which it is known to be whole."""
        self._scratch().mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".adapter-", dir=self._scratch()) as directory:
            adapted.save_pretrained(directory)
            for name in ("adapter_config.json", "adapter_model.safetensors"):
                self.context.artifacts.put(f"{self._adapter()}{name}", Path(directory) / name)

    def _has_adapter(self) -> bool:
        if not self.row.steps:
            return True
        return self.context.artifacts.stat(f"{self._adapter()}adapter_model.safetensors") is not None

    def _adapter(self) -> str:
        return f"{run_prefix(self.row.key)}adapter/"

    def _checkpoints(self) -> Checkpoints:
        return Checkpoints(self.context.artifacts, f"{run_prefix(self.row.key)}checkpoint/")

    def _scratch(self) -> Path:
        return self.context.settings.cache_path / "training"

    def _finish(self, outcome: RunOutcome, *, reused: bool) -> None:
        with self.context.sessions() as session:
            leases.finish(
                session, self.heartbeat.lease, State.SUCCEEDED, outcome=outcome.model_dump(mode="json"), reused=reused
            )
            session.commit()

"""The pipeline as a Prefect flow: each step is retried and recorded by itself.

    pip install . prefect trl        # in the repository
    python examples/prefect_flow.py

The submission carries the flow run's id as its idempotency key, so that a retried task finds the job that it made.
"""

from __future__ import annotations

from pathlib import Path

from prefect import flow, get_run_logger, task
from prefect.runtime import flow_run

from spice_client import JobRequest, SpiceClient


@task(retries=3, retry_delay_seconds=30)
def submit(request: JobRequest) -> str:
    """Submit the job; its id."""
    with SpiceClient() as client:
        return str(client.jobs.submit(request, idempotency_key=f"prefect-{flow_run.id}").id)


@task(retries=3, retry_delay_seconds=30)
def wait(job_id: str, timeout_s: float) -> float:
    """Wait until the job has succeeded; its certificate."""
    with SpiceClient() as client:
        job = client.wait(job_id, timeout=timeout_s, progress=False)
    get_run_logger().info("%s rows, certificate %.3f", job.result.selected, job.result.certificate.value)
    return job.result.certificate.value


@task(retries=3, retry_delay_seconds=30)
def export(job_id: str, directory: Path) -> Path:
    """Write the subset for TRL; the file."""
    with SpiceClient() as client:
        return client.export(job_id, "trl", directory).files[0]


@task
def train(model: str, data: Path, out: Path) -> None:
    """Fine-tune with TRL."""
    import torch
    from datasets import load_dataset
    from trl import SFTConfig, SFTTrainer

    trainer = SFTTrainer(
        model=model,
        train_dataset=load_dataset("json", data_files=str(data), split="train"),
        args=SFTConfig(
            output_dir=str(out),
            num_train_epochs=3,
            learning_rate=5e-5,
            lr_scheduler_type="cosine",
            use_cpu=not torch.cuda.is_available(),
            bf16=torch.cuda.is_available(),
            report_to=[],
        ),
    )
    trainer.train()
    trainer.save_model(str(out))


@flow(log_prints=True)
def select_and_train(request: JobRequest, model: str, out: Path, least_certificate: float = 0.3) -> None:
    """Select a subset and fine-tune on it."""
    job_id = submit(request)
    if wait(job_id, timeout_s=24 * 3600) < least_certificate:
        raise RuntimeError("too little is proven about the subset: raise the budget")
    train(model, export(job_id, out / "subset"), out / "model")


if __name__ == "__main__":
    select_and_train(
        {
            "dataset": {"uri": "s3://bucket/train.jsonl"},
            "model": {"uri": "file:///models/smollm2"},
            "selection": {"budget": {"fraction": 0.1}},
        },
        model="/models/llama",
        out=Path("runs/tonight"),
    )

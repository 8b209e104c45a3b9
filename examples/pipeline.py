"""Select a subset and fine-tune on it, as one step of a pipeline: submit, wait, check, export, train.

    pip install . trl        # in the repository
    export SPICE_API_URL=https://spice.example SPICE_API_KEY=spice_...
    python examples/pipeline.py --dataset s3://bucket/train.jsonl --proxy file:///models/smollm2 \
        --model /models/llama --budget 0.1 --out runs/tonight

Run again with the same `--run`, it makes no second job: the submission carries the run's name as its key. Exit status:
0 trained; 1 the job or the check failed.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from spice_client import JobRequest, SpiceClient, SpiceError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from spice_client import SucceededJob


def select(client: SpiceClient, arguments: argparse.Namespace) -> SucceededJob:
    """Have the service pick a subset; comes back when it has."""
    request: JobRequest = {
        "name": arguments.run,
        "dataset": {"uri": arguments.dataset},
        "model": {"uri": arguments.proxy},
        "selection": {"budget": {"fraction": arguments.budget}, "baselines": ["random"]},
    }
    job = client.jobs.submit(request, idempotency_key=f"pipeline-{arguments.run}")
    print(f"job {job.id} at {client.url}")
    return client.wait(job, progress=True)


def is_good_enough(job: SucceededJob, least_certificate: float) -> bool:
    """Whether what is proven about the subset is enough to spend a training on it."""
    result, random = job.result, job.result.baselines["random"]
    value = result.certificate.value
    print(f"{result.selected} of {result.rows_total} rows: {result.log_det:.2f} nats, random {random.log_det:.2f}")
    print(f"proven to hold at least {value:.1%} of what the best subset of this size holds")
    return value >= least_certificate


def train(model: str, data: Path, out: Path, steps: int) -> float:
    """Fine-tune with TRL; the loss is that of the responses alone. Returns the mean loss, in nats a token."""
    import torch
    from datasets import load_dataset
    from trl import SFTConfig, SFTTrainer

    trainer = SFTTrainer(
        model=model,
        train_dataset=load_dataset("json", data_files=str(data), split="train"),
        args=SFTConfig(
            output_dir=str(out),
            max_steps=steps,
            per_device_train_batch_size=4,
            use_cpu=not torch.cuda.is_available(),
            bf16=torch.cuda.is_available(),
            report_to=[],
        ),
    )
    loss = trainer.train().training_loss
    trainer.save_model(str(out))
    return loss


def main(given: Sequence[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", required=True, help="URI of the dataset, as the service sees it")
    parser.add_argument("--proxy", required=True, help="URI of the model that scores, as the service sees it")
    parser.add_argument("--model", required=True, help="the model to train: a directory here, or a name of the hub")
    parser.add_argument("--budget", type=float, default=0.1, help="fraction of the rows to pick (default: 0.1)")
    parser.add_argument("--least-certificate", type=float, default=0.3, help="train only from here on (default: 0.3)")
    parser.add_argument("--steps", type=int, default=100, help="training steps (default: 100)")
    parser.add_argument("--run", required=True, help="name of this run")
    parser.add_argument("--out", type=Path, required=True, help="directory for the subset and the trained model")
    arguments = parser.parse_args(given)
    try:
        with SpiceClient() as client:
            job = select(client, arguments)
            if not is_good_enough(job, arguments.least_certificate):
                print("not enough: raise the budget, or lower --least-certificate", file=sys.stderr)
                return 1
            exported = client.export(job, "trl", arguments.out / "subset")
    except SpiceError as failure:
        print(f"{failure.title}: {failure.detail}", file=sys.stderr)
        return 1
    loss = train(arguments.model, exported.files[0], arguments.out / "model", arguments.steps)
    print(f"trained on {exported.rows} rows: loss {loss:.3f}; the model is in {arguments.out / 'model'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

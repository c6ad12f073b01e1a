"""Two processes with half a batch each do what one does with the whole."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from tiny import striped_store, write_corpus
from torch import nn

from acl_lib import experiments, parallel, training
from acl_lib.__main__ import main
from acl_lib.config import LossConfig, TrainConfig
from acl_lib.models import Classifier, ProjectionHead, ResNet18
from acl_lib.training import (
    KeyMemory,
    MoCoStep,
    SimCLRStep,
    SupConStep,
    SupervisedStep,
    seed_everything,
    train,
)

CLIPS, BATCH = 12, 8
Y = torch.arange(CLIPS) % 3
ACL = LossConfig(alpha=0.3)
STEPS = {
    "nt_xent": (SimCLRStep, LossConfig()),
    "one way": (SimCLRStep, LossConfig(symmetric=False)),
    "two passes": (SimCLRStep, LossConfig()),
    "acl": (SimCLRStep, ACL),
    "nt_xent_am": (SimCLRStep, LossConfig(positive_margin=0.1)),
    "angular": (SimCLRStep, LossConfig(positive_margin=0.1, margin_kind="angular")),
    "moco": (MoCoStep, LossConfig()),
    "moco one way": (MoCoStep, LossConfig(symmetric=False)),
    "moco_acl": (MoCoStep, ACL),
    "supcon": (SupConStep, LossConfig()),
    "supervised_acl": (SupervisedStep, LossConfig(alpha=0.5)),
}


def modules_and_step(
    name: str, dtype: torch.dtype = torch.float32
) -> tuple[list[nn.Module], object]:
    """What a case trains; its views are the same in every process, so that only sharing differs."""
    generator = seed_everything(0)
    views = torch.randn(2, CLIPS, 1, 64, 101, generator=generator)
    views = views.to(dtype)
    encoder, head = ResNet18(8).to(dtype), ProjectionHead(64, 64, 16).to(dtype)
    kind, loss = STEPS[name]
    if kind is SupervisedStep:
        network = Classifier(encoder, 64, 3).to(dtype)
        step = SupervisedStep(
            parallel.replica(network), lambda clips: views[0][clips], Y, loss, "float32"
        )
        return [network], step
    parts = {
        "pairs": lambda clips: views[:, clips].flatten(0, 1),
        "loss": loss,
        "precision": "float32",
        "two_passes": name == "two passes",
    }
    if kind is SupConStep:
        parts["y"] = Y
    if kind is MoCoStep:
        directions = 1 + loss.symmetric
        memory = KeyMemory(
            encoder, head, d=16, queue=20, directions=directions, generator=generator
        )
        parts |= {"memory": memory.to(dtype), "momentum": 0.9, "generator": generator}
    modules = [encoder, head]
    return modules, kind(*map(parallel.replica, modules), **parts)


def one_step(name: str, dtype: torch.dtype = torch.float32) -> dict[str, torch.Tensor]:
    """Loss, gradients, BatchNorm statistics and queue after a step with the first clips."""
    modules, step = modules_and_step(name, dtype)
    kept = getattr(step, "kept", [])
    with parallel.synchronised(*modules, *kept):
        loss = step(parallel.my_part(torch.arange(BATCH)))
        loss.backward()
    found = {"loss": loss.detach()}
    for i, module in enumerate([*modules, *kept]):
        found |= {f"{i}.{k}.grad": p.grad for k, p in module.named_parameters() if p.requires_grad}
        found |= {f"{i}.{k}": b.clone() for k, b in module.named_buffers()}
    return found


def a_training(draws: list | None = None, checkpoint: Path | None = None, epochs: int = 3) -> dict:
    """A training with views, backgrounds and augmentation drawn; what it leaves."""
    store, pool = striped_store(CLIPS), torch.arange(CLIPS)
    generator = seed_everything(1)
    modules = [ResNet18(8), ProjectionHead(64, 64, 16)]
    settings = training.ViewConfig(patch_frames=40)
    pairs = training.view_pairs(store, pool, views=settings, generator=generator)

    def told(clips):
        x = pairs(clips)
        if draws is not None:
            draws.append((clips.tolist(), x.mean().item()))
        return x

    step = SimCLRStep(*map(parallel.replica, modules), told, LossConfig(), "float32")
    config = TrainConfig(width=8, epochs=3, batch=BATCH, lr=0.05, drop_last=False)

    def stop(epoch: int, loss: float) -> bool:
        return epoch == epochs

    history = train(
        step,
        pool,
        modules,
        config=config,
        generator=generator,
        checkpoint=checkpoint,
        on_epoch=stop,
        score=lambda: float(sum(p.detach().sum() for p in modules[0].parameters())),
    )
    weights = {k: v for module in modules for k, v in module.state_dict().items()}
    return {"weights": weights, "loss": history.loss, "scores": history.scores}


def interrupted(checkpoint: Path) -> None:
    """A training that ends after its second epoch without knowing that it is done."""

    class Killed(Exception):
        pass

    save = training._Run.save

    def save_then_die(run, path):
        save(run, path)
        if len(run.loss) == 2:
            raise Killed

    training._Run.save = save_then_die
    try:
        a_training(checkpoint=checkpoint)
    except Killed:
        pass
    finally:
        training._Run.save = save


def process(rank: int, root: Path, port: str) -> None:
    """What each of two processes does; it leaves what it found in files."""
    torch.set_num_threads(1)
    training.CHECKPOINT_SECONDS = 0.0
    dist.init_process_group("gloo", init_method=port, rank=rank, world_size=2)
    steps = {name: one_step(name) for name in STEPS}
    exact = {name: one_step(name, torch.float64) for name in STEPS}
    draws: list = []
    found = {"steps": steps, "exact": exact, "training": a_training(draws), "draws": draws}
    found["resumed"] = a_training(checkpoint=root / "of_one.resume")
    try:
        train(None, torch.arange(4), [], config=TrainConfig(batch=7), generator=None)
    except ValueError as error:
        found["uneven"] = str(error)
    with parallel.alone():
        found["alone"] = parallel.ranks(), len(parallel.my_part(torch.arange(6)))
    found["told"] = parallel.from_first(lambda: rank), parallel.total(1.5)
    torch.save(found, root / f"{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def of_two(tmp_path_factory):
    """What two processes found, and the folder they worked in."""
    root = tmp_path_factory.mktemp("two")
    before, training.CHECKPOINT_SECONDS = training.CHECKPOINT_SECONDS, 0.0
    interrupted(root / "of_one.resume")
    training.CHECKPOINT_SECONDS = before
    mp.set_forkserver_preload(["acl_lib.experiments"])  # both are forked from one that has it
    start = "forkserver" if "forkserver" in mp.get_all_start_methods() else "spawn"
    meet = f"file://{root / 'meet'}"
    mp.start_processes(process, (root, meet), nprocs=2, start_method=start)
    return [torch.load(root / f"{rank}.pt", weights_only=True) for rank in range(2)]


@pytest.mark.parametrize("name", STEPS)
def test_loss_and_gradients_are_those_of_the_whole_batch(name, of_two):
    whole = one_step(name)
    for mine in (found["steps"][name] for found in of_two):
        assert mine["loss"].item() == pytest.approx(whole["loss"].item(), rel=1e-5)
        slope, other = (
            torch.cat([v.flatten() for k, v in some.items() if k.endswith("grad")])
            for some in (whole, mine)
        )
        assert (other - slope).norm() <= 1e-5 * slope.norm()
        torch.testing.assert_close(
            {k: v for k, v in mine.items() if not k.endswith("grad")},
            {k: v for k, v in whole.items() if not k.endswith("grad")},
            rtol=1e-5,
            atol=1e-5,
        )


@pytest.mark.parametrize("name", STEPS)
def test_in_float64_every_tensor_is_that_of_the_whole_batch(name, of_two):
    whole = one_step(name, torch.float64)
    for mine in (found["exact"][name] for found in of_two):
        assert mine.keys() == whole.keys()
        for key, value in whole.items():
            apart = (mine[key] - value).double().norm()
            assert apart <= 1e-10 * max(value.double().norm(), 1e-3), key


def test_without_gathering_the_gradient_would_be_another():
    modules, step = modules_and_step("nt_xent")
    (step(torch.arange(4)) / 2 + step(torch.arange(4, 8)) / 2).backward()
    halves = modules[1][3].weight.grad
    whole = one_step("nt_xent")["1.3.weight.grad"]
    assert (halves - whole).norm() > 0.01 * whole.norm()


def test_each_process_draws_its_own_clips_and_views(of_two):
    first, second = (found["draws"] for found in of_two)
    assert len(first) == len(second) == 3 * 2
    for epoch in range(3):
        seen = [clips for found in of_two for clips, _ in found["draws"][2 * epoch : 2 * epoch + 2]]
        assert sorted(clip for clips in seen for clip in clips) == list(range(CLIPS))
    assert len({mean for found in of_two for _, mean in found["draws"]}) == 12


def test_processes_end_with_the_same_weights_and_scores(of_two):
    first, second = (found["training"] for found in of_two)
    assert first["loss"] == second["loss"] and first["scores"] == second["scores"]
    for key, value in first["weights"].items():
        assert torch.equal(value, second["weights"][key])


def test_a_checkpoint_of_one_process_goes_on_in_two(of_two, tmp_path, monkeypatch):
    monkeypatch.setattr(training, "CHECKPOINT_SECONDS", 0.0)
    interrupted(tmp_path / "x.resume")
    one = a_training(checkpoint=tmp_path / "x.resume")
    for found in of_two:
        assert found["resumed"]["loss"][:2] == one["loss"][:2]  # made by one
        assert len(found["resumed"]["loss"]) == 3 and found["resumed"]["loss"][2] != one["loss"][2]
        assert found["resumed"]["loss"] == of_two[0]["resumed"]["loss"]


def test_what_is_uneven_is_refused_and_what_one_does_alone_is_whole(of_two):
    for found in of_two:
        assert "batch of 7 cannot be shared by 2 processes equally: set batch=6" in found["uneven"]
        assert found["alone"] == (1, 6)
        assert found["told"] == (0, 3.0)


def test_alone_nothing_is_touched():
    x = torch.randn(4, 3)
    assert parallel.gather(x) is x and parallel.my_part(Y) is Y and parallel.ranks() == 1
    encoder = ResNet18(8)
    before = str(encoder)
    with parallel.synchronised(encoder):
        assert str(encoder) == before and parallel.replica(encoder) is encoder
    generator = torch.Generator().manual_seed(0)
    with parallel.own_draws(generator):
        drawn = torch.rand((), generator=generator)
    assert drawn == torch.rand((), generator=torch.Generator().manual_seed(0))


def test_torchrun_makes_one_record_and_its_run_goes_on_in_another_number(tmp_path, monkeypatch):
    write_corpus(tmp_path / "sounds")
    env = os.environ | {"OMP_NUM_THREADS": "1"}
    command = ["-m", "acl_lib", "run", "acl", "--corpus", f"folder:{tmp_path / 'sounds/clips.csv'}"]
    for setting in ("width=8", "epochs=2", "batch=4", "precision='float32'", "penalties=[0.1]"):
        command += ["--set", setting]
    launch = ["-m", "torch.distributed.run", "--nproc_per_node=2", "--standalone"]
    said = subprocess.run(
        [sys.executable, *launch, *command], env=env, capture_output=True, text=True
    )
    assert said.returncode == 0, said.stderr
    assert said.stdout.count("record: ") == 1
    (path,) = (tmp_path / "runs").glob("*/record.json")
    record = json.loads(path.read_text())
    assert record["cost"]["ranks"] == 2
    assert record["results"]["trained"]["linear"]["n"] == 12
    before = path.read_bytes()
    monkeypatch.setattr(experiments, "fit", lambda *a, **k: pytest.fail("made again"))
    assert main(command[2:]) == 0 and path.read_bytes() == before  # found

"""One fold of ESC-10 followed closely: angles and terms in every epoch, maps, readers of h and z.

Networks of the `laptop` profile are trained on folds 2 to 5 and looked at on the 80 clips of
fold 1: untrained, NT-Xent, ACL, cross-entropy, cross-entropy + margin at the recipes' settings,
then NT-Xent and ACL at other temperatures. Prints a table and writes book/results/one_fold.json
after each network; a network that is there already is not trained again.

    ACL_DATA=data python benchmarks/one_fold.py [--temperatures 0.05 0.1 0.5 1.0]
"""

import argparse
import json
from pathlib import Path

import torch
from timing import write_record

from acl_lib import projection
from acl_lib.config import recipe
from acl_lib.experiments import code_fingerprint, fit, new_network, open_recipe_corpus, open_store
from acl_lib.losses import angular_margin, nt_xent
from acl_lib.probing import embed, knn, linear_probe
from acl_lib.records import geometry
from acl_lib.splits import evaluation_splits, source_numbers
from acl_lib.statistics import wilson_interval
from acl_lib.training import SimCLRStep, seed_everything, standardisation, train, view_pairs

RECORD = Path(__file__).parents[1] / "book" / "results" / "one_fold.json"
NETWORKS = {
    "untrained": ("contrastive", {}),
    "NT-Xent": ("contrastive", {}),
    "ACL": ("acl", {}),
    "CE": ("supervised", {}),
    "CE + margin": ("supervised_acl", {}),
}
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


def rounded(values, digits):
    return [round(value, digits) for value in values.tolist()]


def pair_groups(h, clip, y):
    """Angles in degrees between the first and last patches of clips, by what the two share."""
    count = clip.unique_consecutive(return_counts=True)[1]
    last = count.cumsum(0) - 1
    rows = torch.cat([last - count + 1, last])
    clip, y, u = clip[rows], y[clip[rows]], torch.nn.functional.normalize(h[rows].double(), dim=1)
    theta = torch.rad2deg(torch.acos((u @ u.T).clamp(-1, 1)))
    upper = torch.ones_like(theta, dtype=torch.bool).triu(1)
    same_clip, same_class = clip[:, None] == clip, y[:, None] == y
    return {
        "same clip": theta[upper & same_clip],
        "same class": theta[upper & same_class & ~same_clip],
        "other class": theta[upper & ~same_class],
    }


def followed(network, store, clips, y, scale, settings):
    """Both terms of ACL and the angles of h and z on clips that training never sees."""
    options = {"mean": scale[0], "std": scale[1], "precision": settings.train.precision}
    h, clip = embed(network.encoder, store, clips, **options)
    with torch.no_grad():
        z = network.head.eval()(h)
    count = clip.unique_consecutive(return_counts=True)[1]
    last = count.cumsum(0) - 1
    first, loss = last - count + 1, settings.loss
    options = {"margin": loss.margin, "reduction": loss.reduction}
    return {
        "nt_xent": nt_xent(z[first], z[last], temperature=loss.temperature).item(),
        "angular": angular_margin(h[first], h[last], **options).item(),
        **{
            space: {
                name: rounded(theta.quantile(torch.tensor(QUANTILES).double()), 2)
                for name, theta in pair_groups(at, clip, y).items()
            }
            for space, at in (("h", h), ("z", z))
        },
        "geometry": {k: round(v, 4) for k, v in geometry(h, clip, y).items()},
    }


def measured(settings, split, corpus, store, *, trained, with_maps):
    """What one network, trained or not, is on the fold that it never heard."""
    y, groups, num_classes = corpus.labels, source_numbers(corpus), len(corpus.classes)
    epochs, history = [], None
    if settings.method == "simclr":
        network = new_network(settings, num_classes)
        generator = seed_everything(settings.seed)
        scale = standardisation(store, split.pretrain, settings.views.standardise)

        def look(epoch, loss):
            epochs.append(followed(network, store, split.test, y, scale, settings))

        look(0, None)
        if trained:
            pairs = view_pairs(store, split.pretrain, views=settings.views, generator=generator)
            step = SimCLRStep(*network.modules, pairs, settings.loss, settings.train.precision)
            history = train(
                step,
                split.pretrain,
                network.modules,
                config=settings.train,
                generator=generator,
                on_epoch=look,
            )
    else:
        network, scale, history = fit(settings, store, y, split, num_classes=num_classes)
    options = {"mean": scale[0], "std": scale[1], "precision": settings.train.precision}
    h, clip = embed(network.encoder, store, torch.arange(len(corpus)), **options)
    spaces = {"h": h}
    if network.head:
        with torch.no_grad():
            spaces["z"] = network.head.eval()(h)
    tested = torch.isin(clip, split.test)
    readers, angles = {}, {}
    for space, at in spaces.items():
        ask = {"train": split.probe, "test": split.test, "num_classes": num_classes}
        answers = {
            "linear": linear_probe(at, clip, y, groups=groups, config=settings.probe, **ask)[0],
            "knn": knn(at, clip, y, neighbours=settings.probe.neighbours, **ask),
        }
        right = {k: int((p.argmax(1) == y[split.test]).sum()) for k, p in answers.items()}
        n = len(split.test)
        readers[space] = {
            k: {"accuracy": r / n, "interval": wilson_interval(r, n), "n": n}
            for k, r in right.items()
        }
        angles[space] = {
            name: torch.histc(theta.float(), 180, 0, 180).int().tolist()
            for name, theta in pair_groups(at[tested], clip[tested], y).items()
        }
    h_clip = torch.stack([h[clip == n].mean(0) for n in range(len(corpus))])
    maps = {}
    if with_maps:
        maps = {"PCA": projection.pca(h_clip), "UMAP": projection.umap(h_clip, seed=settings.seed)}
    return {
        "recipe": json.loads(settings.to_json()),
        "epochs": epochs,  # 0 is the untrained network
        "loss": history.loss if history else [],
        "cpu_seconds": history.cpu_seconds if history else 0.0,
        "readers": readers,
        "geometry": {space: geometry(at[tested], clip[tested], y) for space, at in spaces.items()},
        "angles": angles,  # counts of pairs in 180 bins of one degree
        "maps": {k: [rounded(row, 3) for row in xy] for k, xy in maps.items()},
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--corpus", default="esc10")
    parser.add_argument("--profile", default="laptop")
    parser.add_argument("--temperatures", type=float, nargs="*", default=[0.05, 0.1, 0.5, 1.0])
    parser.add_argument("--record", type=Path, default=RECORD)
    args = parser.parse_args()
    torch.set_num_threads(1)
    code = code_fingerprint()
    plan = {name: (which, dict(more)) for name, (which, more) in NETWORKS.items()}
    for tau in args.temperatures:
        for name in ("NT-Xent", "ACL"):
            plan[f"{name}, tau {tau:g}"] = (NETWORKS[name][0], {"temperature": tau})
    record = json.loads(args.record.read_text()) if args.record.exists() else {"networks": {}}
    for name, (which, more) in plan.items():
        settings = recipe(which, corpus=args.corpus, profile=args.profile, **more)
        corpus = open_recipe_corpus(settings)
        split = evaluation_splits(corpus, settings)[0]
        if name not in record["networks"]:
            store = open_store(corpus, settings)
            found = measured(
                settings,
                split,
                corpus,
                store,
                trained=name != "untrained",
                with_maps=name in NETWORKS,
            )
            record["networks"][name] = {**found, "code": code}
            record |= {
                "corpus": {"name": corpus.name, "fingerprint": corpus.fingerprint()},
                "classes": list(corpus.classes),
                "labels": corpus.labels.tolist(),
                "test": split.test.tolist(),
                "quantiles": list(QUANTILES),
            }
            write_record(args.record, record, indent=None)
        for space, asked in record["networks"][name]["readers"].items():
            got = "  ".join(f"{k} {100 * v['accuracy']:5.2f} %" for k, v in asked.items())
            gap = record["networks"][name]["geometry"][space]["class_gap"]
            print(f"{name:20} {space}  {got}  gap {gap:.3f}", flush=True)
    print(f"written to {args.record}")


if __name__ == "__main__":
    main()

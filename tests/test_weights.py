"""Where weights begin: each form of the setting with small models made here, what does not fit, and features that stay as they are."""

import json
from dataclasses import replace

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import load_file, save_file
from test_encoders import cache, no_network  # noqa: F401  a fixture
from test_precision import FULL, setting_of
from torch.nn import functional as F

from search.registry import load
from trainables import scl, supcam
from trainables.data.normal import normal_of
from trainables.parts.encoders import create_backbone, start_faults, statistics_of
from trainables.parts.errors import Collapsed, RequestError, WeightsUnreachable
from trainables.parts.evaluation import knn_accuracy
from trainables.parts.execution import config_hash, execute
from trainables.parts.probe import fit_probe, probed
from trainables.parts.weights import architecture_of, pinned

TINY, CPU = "test_resnet", torch.device("cpu")


def made(folder, name=TINY, seed=1, expects=None, **arguments):
    """A model in timm's form in a folder: three channels, ten classes. expects: mean and deviation of each channel of its images."""
    torch.manual_seed(seed)
    model = timm.create_model(name, num_classes=10, **arguments)
    folder.mkdir(parents=True)
    save_file(model.state_dict(), folder / "model.safetensors", metadata={"format": "pt"})
    cfg = {"architecture": name, "num_classes": 10, "pretrained_cfg": {"num_classes": 10, "classifier": model.pretrained_cfg["classifier"]}}
    cfg["pretrained_cfg"] |= dict(zip(("mean", "std"), expects, strict=True)) if expects else {}
    (folder / "config.json").write_text(json.dumps(cfg | ({"model_args": arguments} if arguments else {})))
    return model.state_dict()


def body(model):
    return {name: tensor for name, tensor in model.items() if not name.startswith(("fc.", "head.", "conv1.0.", "patch_embed."))}


def same(loaded, wanted):
    return body(loaded) and all(torch.equal(tensor, wanted[name]) for name, tensor in body(loaded).items())


def begin(weights, backbone=TINY, **more):
    given = {"channels": 1, "classes": 4, "seed": 0} | more
    return create_backbone(backbone, weights=weights, **given).state_dict()


def test_a_folder_in_timms_form_is_loaded_with_its_first_layer_summed_for_gray(tmp_path):
    wanted = made(tmp_path / "m")
    loaded = begin(f"local-dir:{tmp_path / 'm'}")
    assert same(loaded, wanted) and loaded["fc.weight"].shape[0] == 4
    assert torch.allclose(loaded["conv1.0.weight"], wanted["conv1.0.weight"].sum(1, keepdim=True), atol=1e-6)
    assert not same(begin("random"), wanted)


def test_a_model_of_the_hub_is_loaded_from_the_cache_without_a_network(no_network):  # noqa: F811
    place = no_network / "hub" / "models--lab--small"
    wanted = made(place / "snapshots" / ("0" * 40))
    (place / "refs").mkdir()
    (place / "refs" / "main").write_text("0" * 40)
    assert same(begin("hf-hub:lab/small"), wanted)
    with pytest.raises(
        RequestError, match=r"weights must be of backbone test_efficientnet, got 'hf-hub:lab/small'; set backbone=test_resnet$"
    ):
        begin("hf-hub:lab/small", "test_efficientnet")


@pytest.mark.parametrize("name", ["hf-hub:lab/none", "vit_small_patch16_dinov3.lvd1689m"])
def test_a_hub_that_cannot_be_reached_is_said_with_the_weights_name(no_network, name):  # noqa: F811
    with pytest.raises(WeightsUnreachable, match=f"the weights {name} are neither in the cache nor reachable from this machine"):
        begin(name, "vit_small_patch16_dinov3")


def test_a_timm_name_with_its_tag_is_loaded_and_must_be_of_the_backbone(no_network):  # noqa: F811
    wanted = cache(no_network, "test_resnet.r160_in1k")
    assert same(begin("test_resnet.r160_in1k"), wanted)
    [fault] = start_faults("resnet18", "test_resnet.r160_in1k")
    assert fault == "weights must be of backbone resnet18, got 'test_resnet.r160_in1k'; set backbone=test_resnet"
    [fault] = start_faults("resnet18", "resnet18.nonsense")
    assert "resnet18.a1_in1k" in fault


def test_arguments_of_a_published_model_are_told_and_taken_with_the_backbone(tmp_path):
    wanted = made(tmp_path / "m", "test_vit", init_values=1e-5)
    weights = f"local-dir:{tmp_path / 'm'}"
    [fault] = start_faults("test_vit", weights)
    assert fault.endswith("set backbone=test_vit(init_values=1e-05)")
    loaded = begin(weights, fault.partition("set backbone=")[2], input_size=160)
    assert same({k: v for k, v in loaded.items() if k != "pos_embed"}, wanted) and "blocks.0.ls1.gamma" in loaded
    assert architecture_of("a(b=1, c='x')") == ("a", {"b": 1, "c": "x"}) and architecture_of("a") == ("a", {})
    for bad in ("a(b)", "a(b=c)", "a(", "a(**{})"):
        with pytest.raises(RequestError, match=r"backbone must be .* got 'a\("):
            architecture_of(bad)


@pytest.mark.parametrize("weights", ["coco", "resnet51.a1", "hf-hub:", "local-dir:/no/such", "/no/such/best", "./best"])
def test_what_is_no_start_is_a_fault_that_lists_the_forms(weights):
    [fault] = start_faults(TINY, weights)
    assert fault.startswith("weights must be random, imagenet, a timm name") and repr(weights) in fault and "hf-hub:OWNER/NAME" in fault


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A shared stage and the folder of a run of ours."""
    from search.stages import Stages

    folder, config = tmp_path_factory.mktemp("trained"), replace(FULL["supcam"], pretrain_epochs=1, finetune_epochs=1)
    pack = setting_of("supcam", config).pack
    execute(supcam.PROCEDURE, config, seed=0, pack=pack, folder=folder / "run", store=Stages(folder / "study"))
    [stage] = (folder / "study" / "stages").iterdir()
    return stage, folder / "run"


def test_a_stage_and_a_model_of_ours_begin_another_training(trained):
    stage, run = trained
    tensors = load_file(stage / "stage.safetensors")
    for which, given in (("query", f"{stage}"), ("query", f"{stage}:query"), ("key", f"{stage}:key")):
        loaded = begin(given)
        assert all(torch.equal(loaded[name], tensors[f"{which}.{name}"]) for name in loaded if not name.startswith("fc."))
    model = load_file(run / "model.safetensors")
    loaded = begin(str(run))
    assert all(torch.equal(loaded[name], model[name]) for name in loaded if not name.startswith("fc."))
    assert not torch.equal(loaded["fc.weight"], model["fc.weight"])  # the classifier is new


def test_a_path_is_a_configuration_by_what_lies_there(tmp_path):
    made(tmp_path / "m")
    procedure, weights = load("supcam").procedure, f"local-dir:{tmp_path / 'm'}"
    config = replace(FULL["supcam"], weights=weights)
    first, once = config_hash(procedure, config), procedure.canonical(config)
    assert procedure.canonical(once) == once and once.weights == pinned(weights) and once.weights.startswith(weights + "#")
    assert same(begin(once.weights), load_file(tmp_path / "m" / "model.safetensors"))
    (tmp_path / "m").rename(tmp_path / "old")
    made(tmp_path / "m", seed=2)
    assert config_hash(procedure, config) != first
    with pytest.raises(RequestError, match=r"are not there any more, or are others than when the study was asked for"):
        begin(once.weights)
    for name in ("random", "imagenet", "hf-hub:a/b", "resnet18.a1_in1k", "/no/such"):
        assert pinned(name) == name


def hub(no_network, repository="lab--small"):  # noqa: F811
    """A folder in the hub's cache."""
    place = no_network / "hub" / f"models--{repository}"
    (place / "refs").mkdir(parents=True)
    (place / "refs" / "main").write_text("0" * 40)
    return place / "snapshots" / ("0" * 40)


def rewrite(file, change):
    tensors = load_file(file)
    save_file(change(tensors), file, metadata={"format": "pt"})


def start(kind, folder, no_network, change):  # noqa: F811
    """Weights of one kind whose file has been changed."""
    if kind == "timm":
        cache(no_network, "test_resnet.r160_in1k")
        [file] = no_network.rglob("model.safetensors")
    else:
        place = hub(no_network) if kind == "hub" else folder / "m"
        made(place)
        file = place / "model.safetensors"
    rewrite(file, change)
    if kind == "own":
        (file.parent / "config.json").unlink()
    return {"timm": "test_resnet.r160_in1k", "hub": "hf-hub:lab/small", "folder": f"local-dir:{folder / 'm'}", "own": str(folder / "m")}[
        kind
    ]


@pytest.mark.parametrize("kind", ["folder", "hub", "timm", "own"])
def test_weights_that_leave_a_tensor_of_the_body_as_it_was_drawn_are_refused_by_its_name(kind, tmp_path, no_network):  # noqa: F811
    def gray(tensors):
        return tensors | {"conv1.0.weight": tensors["conv1.0.weight"].sum(1, keepdim=True)} if kind == "own" else tensors

    def less(tensors):
        return {name: tensor for name, tensor in gray(tensors).items() if name not in ("layer4.0.bn2.weight", "fc.weight")}

    weights = start(kind, tmp_path, no_network, less)
    with pytest.raises(
        RequestError, match=r"not of backbone test_resnet with these images: 1 of 90 tensors .* layer4\.0\.bn2\.weight among"
    ):
        begin(weights)
    if kind != "timm":  # what the hub may have to send first is not asked for before the run
        [fault] = start_faults(TINY, weights)
        assert "1 of 90 tensors" in fault


@pytest.mark.parametrize("prefix", ["module.", "encoder_q.", "module.encoder_q.", "backbone."])
@pytest.mark.parametrize("kind", ["folder", "hub", "own"])
def test_what_wrappers_put_before_names_is_taken_off_where_all_then_fits(kind, prefix, tmp_path, no_network):  # noqa: F811
    def wrapped(tensors):
        if kind == "own":
            tensors = tensors | {"conv1.0.weight": tensors["conv1.0.weight"].sum(1, keepdim=True)}
        return {prefix + name: tensor for name, tensor in tensors.items()} | {"queue": torch.zeros(3)}

    weights = start(kind, tmp_path, no_network, wrapped)
    assert start_faults(TINY, weights) == []
    torch.manual_seed(1)
    assert same(begin(weights), timm.create_model(TINY, num_classes=10).state_dict())
    model = create_backbone(TINY, channels=1, classes=4, weights=weights, seed=0)
    assert not model.pretrained_cfg.get("state_dict")  # which every copy of the model would carry
    file = next((no_network if kind == "hub" else tmp_path).rglob("model.safetensors"))
    rewrite(file, lambda tensors: {name: tensor for name, tensor in tensors.items() if not name.endswith("layer1.0.conv1.weight")})
    with pytest.raises(RequestError, match=r"1 of 90 tensors .* layer1\.0\.conv1\.weight among"):
        begin(weights)


def test_a_resampled_transformer_behind_a_prefix_is_loaded_as_without(tmp_path):
    wanted = made(tmp_path / "m", "test_vit")
    for_size = begin(f"local-dir:{tmp_path / 'm'}", "test_vit", input_size=96)
    rewrite(tmp_path / "m" / "model.safetensors", lambda tensors: {f"encoder_q.{name}": tensor for name, tensor in tensors.items()})
    assert start_faults("test_vit", f"local-dir:{tmp_path / 'm'}", 1, 96) == []
    loaded = begin(f"local-dir:{tmp_path / 'm'}", "test_vit", input_size=96)
    assert loaded["pos_embed"].shape != wanted["pos_embed"].shape
    assert all(torch.equal(loaded[name], for_size[name]) for name in loaded)


def test_a_plan_says_of_files_what_a_run_would(tmp_path, trained):
    stage, run = trained
    assert start_faults(TINY, str(run)) == start_faults(TINY, f"{stage}:key") == []
    bad = tmp_path / "bad"
    made(bad)
    whole = (bad / "model.safetensors").read_bytes()
    (bad / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    made(tmp_path / "none")
    (tmp_path / "none" / "model.safetensors").unlink()
    torch.save({}, tmp_path / "old.pth")
    for weights, more, words in (
        (str(run), {"channels": 3}, r"1 of 90 tensors .*conv1\.0\.weight"),
        (f"{run}:key", {}, "hold no key encoder"),
        (str(bad), {}, "cannot be read"),
        (f"local-dir:{bad}", {}, "cannot be loaded"),
        (f"local-dir:{tmp_path / 'none'}", {}, "cannot be loaded: No suitable checkpoints"),
        (str(tmp_path / "old.pth"), {}, r"must be a safetensors file, this ends in \.pth"),
    ):
        [fault] = start_faults(TINY, weights, **more)
        with pytest.raises(RequestError, match=words) as told:
            begin(weights, **more)
        assert told.value.faults == [fault]
    [fault] = start_faults("test_efficientnet", str(run))
    assert "not of backbone test_efficientnet with these images: " in fault
    made(tmp_path / "xcit", "xcit_nano_12_p16_224")
    [fault] = start_faults("xcit_nano_12_p16_224", f"local-dir:{tmp_path / 'xcit'}", 1, 33)
    assert fault.startswith("images of side 33 must be such as backbone xcit_nano_12_p16_224 takes: `patch_size`")


def test_a_damaged_file_in_the_hubs_cache_is_a_fault_of_the_machine(no_network):  # noqa: F811
    place = hub(no_network)
    made(place)
    (place / "model.safetensors").write_bytes(b"x" * 50)
    with pytest.raises(WeightsUnreachable, match="damaged in this machine's cache"):
        begin("hf-hub:lab/small")


# ------------------------------------------------------------------------------------------------------ features as they are


def features_of(config, given, channels=1):
    """(train rows, val rows) of a model without classifier, as the test sees it."""
    model = create_backbone(config.backbone, channels=channels, classes=0, weights=config.weights, seed=0, input_size=32).eval()
    images = torch.from_numpy(given.pack.images).float()[:, None] / 255
    with torch.no_grad():
        rows = model((images - supcam.GRAY_MEAN) / supcam.GRAY_STD)
    return rows[given.parts["train"]], rows[given.parts["val"]]


@pytest.mark.parametrize("name", ["supcam", "scl"])
@pytest.mark.parametrize("head", ["probe", "neighbours"])
def test_frozen_features_are_classified_by_a_probe_or_by_neighbours_and_an_export_gives_the_same(tmp_path, name, head):
    made(tmp_path / "m")
    config = replace(FULL[name], backbone=TINY, weights=f"local-dir:{tmp_path / 'm'}", classifier=head)
    config = replace(config, pretrain_epochs=0) if name == "supcam" else config
    given, procedure = setting_of(name, config), load(name).procedure
    outcome = execute(procedure, config, seed=0, pack=given.pack, folder=tmp_path / "run", evaluate_test=True)
    train, val = features_of(procedure.canonical(config), given)
    labels = given.pack.labels
    if head == "probe":
        guesses = probed(fit_probe(train.numpy(), labels[given.parts["train"]], len(given.pack.classes)), val.numpy())
        wanted = (guesses == labels[given.parts["val"]]).mean()
    else:
        wanted = knn_accuracy(train, torch.from_numpy(labels[given.parts["train"]]), val, torch.from_numpy(labels[given.parts["val"]]))
    if name == "supcam":  # scl's own images are judged once, supcam's by four turns
        plain = replace(procedure.canonical(config), every_turn=False)
        tensors = load_file(tmp_path / "run" / "model.safetensors")
        judged = supcam.evaluate(plain, tensors, given.pack, given.parts["val"], CPU)
        assert judged.metrics["accuracy"] == pytest.approx(wanted)
    else:
        assert outcome.metrics["val_accuracy"] == pytest.approx(wanted)
    assert outcome.history[-1]["val_accuracy"] == pytest.approx(wanted) and len(outcome.history) == 1
    assert "test_accuracy" in outcome.metrics
    settings = procedure.timm_settings(procedure.canonical(config), given.pack.classes)
    assert (settings is None) == (head == "neighbours")


def test_a_pre_training_is_probed_and_its_weights_stay_as_they_are(tmp_path, trained):
    config = replace(FULL["supcam"], pretrain_epochs=1, classifier="probe", finetune_encoder="key")
    given = setting_of("supcam", config)
    execute(supcam.PROCEDURE, config, seed=0, pack=given.pack, folder=tmp_path / "run")
    handed, found = load_file(trained[0] / "stage.safetensors"), load_file(tmp_path / "run" / "model.safetensors")
    assert all(torch.equal(found[name], handed[f"key.{name}"]) for name in found if not name.startswith("fc."))


def test_nothing_of_the_training_counts_where_features_stay_as_they_are():
    bare = replace(FULL["supcam"], pretrain_epochs=0, classifier="probe")
    for changes in ({"finetune_epochs": 3}, {"finetune_rate": 0.5}, {"rotation": 3.0}, {"weight_decay": 0.5}):
        assert config_hash(supcam.PROCEDURE, replace(bare, **changes)) == config_hash(supcam.PROCEDURE, bare)
    frozen = replace(FULL["scl"], classifier="neighbours")
    for changes in ({"lambda1": 0.0}, {"epochs": 9}, {"learning_rate": 0.5}, {"head": "code"}):
        assert config_hash(scl.PROCEDURE, replace(frozen, **changes)) == config_hash(scl.PROCEDURE, frozen)
    assert config_hash(scl.PROCEDURE, replace(frozen, normalise=False)) != config_hash(scl.PROCEDURE, frozen)


HALF = ([0.5] * 3, [0.5] * 3)


def test_a_network_knows_what_input_its_published_weights_expect_and_random_ones_expect_imagenets(tmp_path, no_network):  # noqa: F811
    def of(weights, channels=1):
        return statistics_of(create_backbone(TINY, channels=channels, classes=0, weights=weights, seed=0))

    cache(no_network, "test_resnet.r160_in1k")
    made(hub(no_network), expects=([0.7, 0.5, 0.6], [0.2, 0.3, 0.1]))
    made(tmp_path / "usual", expects=([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))
    assert timm.get_pretrained_cfg(TINY).mean == (0.5, 0.5, 0.5) and of("random") is None
    assert torch.equal(of("test_resnet.r160_in1k"), torch.tensor([[0.5], [0.5]])) and torch.equal(of("imagenet", 3), torch.tensor(HALF))
    assert torch.allclose(of("hf-hub:lab/small"), torch.tensor([[0.6], [0.2]]))
    assert of(f"local-dir:{tmp_path / 'usual'}") is None and of(f"local-dir:{tmp_path / 'usual'}", 3) is None


CASES = {
    "supcam": ("supcam", {}), "supcam, probe": ("supcam", {"classifier": "probe", "pretrain_epochs": 0}),
    "supcam, pre-trained, neighbours": ("supcam", {"classifier": "neighbours", "finetune_encoder": "key"}),
    "lin2021": ("supcam", {"method": "lin2021", "frozen_epochs": 1}), "scl": ("scl", {}), "scl, neighbours": ("scl", {"classifier": "neighbours"}),
    "scl, 0 to 1": ("scl", {"normalise": False, "classifier": "probe"}), "ccrl": ("ccrl", {}), "ccrl, backbone": ("ccrl", {"features": "backbone", "feature_side": 48}),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_from_its_first_step_to_its_use_a_network_sees_images_as_its_weights_expect_them(case, tmp_path):
    name, changes = CASES[case]
    made(tmp_path / "m", expects=HALF)
    config = replace(FULL[name], backbone=TINY, weights=f"local-dir:{tmp_path / 'm'}", **changes)
    given, procedure, low, high = setting_of(name, config), load(name).procedure, [], []

    def look(module, inputs):
        if isinstance(module, torch.nn.Conv2d) and module.in_channels in (1, 3) and not inputs[0].is_meta:  # the first layer
            low.append(float(inputs[0].detach().min()))
            high.append(float(inputs[0].detach().max()))

    hook = torch.nn.modules.module.register_module_forward_pre_hook(look)
    try:
        outcome = execute(procedure, config, seed=0, pack=given.pack, folder=tmp_path / "run", evaluate_test=True)
        tensors, test = load_file(tmp_path / "run" / "model.safetensors"), given.parts["test"]
        tensors = tensors if procedure.exported is None else procedure.exported(config, tensors)
        save_file(tensors, tmp_path / "again.safetensors")
        said = procedure.predict(procedure.canonical(config), tensors, np.asarray(given.pack.images[test]), given.pack.classes, CPU)
    finally:
        hook.remove()
    bottom = 0 if case == "scl, 0 to 1" else -1  # of black; ImageNet's mean and deviation would make it -2
    assert len(low) > 3 and min(low) >= bottom and max(high) <= 1 + 1e-6
    assert name == "ccrl" or min(low) == bottom
    if name != "ccrl":
        rows = np.array(list(said.values())[1:], np.float64).T  # of five decimals, a record of all
        assert np.allclose(outcome.predictions["test"]["probability"], rows, rtol=0, atol=1e-5)
    if case in ("supcam", "ccrl, backbone"):  # which begins another training, as it is
        again = create_backbone(TINY, channels=1 if name == "supcam" else 3, classes=0, weights=str(tmp_path / "again.safetensors"), seed=0)
        assert torch.equal(statistics_of(again), torch.tensor(HALF)[:, : again.conv1[0].in_channels])


@pytest.mark.parametrize("head", ["trained", "probe", "neighbours"])
@pytest.mark.parametrize("name", ["supcam", "scl"])
def test_whatever_images_are_read_by_counts_in_what_is_trained_and_exported(name, head, tmp_path):
    procedure, asked = load(name).procedure, set()

    class Asked(dict):
        def get(self, field, default=None):
            asked.add(field)
            return super().get(field, default)

    normal_of(Asked())
    fields = [field for field in sorted(asked | {"canvas", "input_size"}) if hasattr(procedure.config(), field)]
    config = replace(procedure.config(), classifier=head)
    for field in fields:
        other = not getattr(config, field) if isinstance(getattr(config, field), bool) else getattr(config, field) + 1
        assert getattr(procedure.canonical(replace(config, **{field: other})), field) == other, field
    assert {"normal_width", "normal_gray"} <= set(fields) and (name == "supcam" or "straighten" in fields)


@pytest.mark.parametrize("head", ["probe", "neighbours"])
def test_features_that_are_the_same_for_every_image_have_collapsed(head, tmp_path):
    made(tmp_path / "m")
    rewrite(tmp_path / "m" / "model.safetensors", lambda tensors: {name: torch.zeros_like(tensor) for name, tensor in tensors.items()})
    weights = f"local-dir:{tmp_path / 'm'}"
    config = replace(FULL["supcam"], pretrain_epochs=0, classifier=head, weights=weights, split=(0.4, 0.4, 0.2))
    given = setting_of("supcam", config)
    with pytest.raises(Collapsed, match=r"validation images is taken for"):
        execute(supcam.PROCEDURE, config, seed=0, pack=given.pack, folder=tmp_path / "run")


def test_the_vote_is_that_of_the_nearest_by_cosine(tmp_path):
    from trainables.parts.frozen import Voting

    rows, labels = F.normalize(torch.randn(30, 5, generator=torch.Generator().manual_seed(0)), dim=1), torch.arange(30) % 3
    voting = Voting(torch.nn.Identity(), 30, 5, 3)
    voting.rows.copy_(rows)
    voting.labels.copy_(labels)
    asked = torch.randn(8, 5, generator=torch.Generator().manual_seed(1)) * 7
    shares = voting(asked).exp().numpy()
    for row, share in zip(F.normalize(asked, dim=1).numpy(), shares, strict=True):
        cosine = rows.numpy() @ row
        near = np.argsort(-cosine)[:20]
        weight = np.exp(cosine[near] / 0.07)
        wanted = [weight[labels.numpy()[near] == c].sum() / weight.sum() for c in range(3)]
        assert share == pytest.approx(wanted, abs=1e-5)

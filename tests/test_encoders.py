"""Backbones and encoders: reproducible weights, unit rows, the moving average, published weights from a cache or not at all."""

import socket
import time

import numpy as np
import pytest
import references
import timm
import torch
from safetensors.torch import save_file

from trainables.parts import encoders
from trainables.parts.encoders import Encoder, create_backbone, key_encoder_of, move_towards, standardise, without_memory
from trainables.parts.errors import RequestError, WeightsUnreachable

TINY = "test_resnet"


@pytest.fixture
def no_network(monkeypatch, tmp_path):
    """An empty cache, and a host that refuses every connection: port 9 of this machine."""
    from huggingface_hub import constants

    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    return tmp_path


def encoder(seed=0, dim=8):
    return Encoder(create_backbone(TINY, channels=1, classes=0, weights="random", seed=seed), dim, seed + 1)


def images(n=4, side=32):
    return torch.rand(n, 1, side, side, generator=torch.Generator().manual_seed(0))


def test_rows_are_of_unit_length_and_float32():
    model = encoder()
    for mode in (True, False):
        rows = model.train(mode)(images())
        assert rows.shape == (4, 8) and rows.dtype == torch.float32
        assert torch.allclose(rows.norm(dim=1), torch.ones(4), atol=1e-6)


def test_an_embedding_is_one_linear_layer_on_the_pooled_features():
    model = encoder().eval()
    features = model.backbone(images())
    by_hand = features.double() @ model.head.weight.double().T + model.head.bias.double()
    assert torch.allclose(model(images()).double(), by_hand / by_hand.norm(dim=1, keepdim=True), atol=1e-6)


def test_equal_seeds_give_equal_weights_whatever_the_process_has_drawn_before():
    torch.manual_seed(1)
    first = encoder().state_dict()
    torch.manual_seed(2)
    torch.rand(5)
    state = torch.random.get_rng_state()
    again, other = encoder().state_dict(), encoder(seed=5).state_dict()
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["backbone.conv1.0.weight"], other["backbone.conv1.0.weight"])
    assert not torch.equal(first["head.weight"], other["head.weight"])


def test_the_key_encoder_begins_as_a_copy_that_takes_no_gradient():
    query = encoder()
    key = key_encoder_of(query)
    assert all(torch.equal(a, b) and a.data_ptr() != b.data_ptr() for a, b in zip(query.parameters(), key.parameters(), strict=True))
    assert not any(parameter.requires_grad for parameter in key.parameters()) and all(p.requires_grad for p in query.parameters())
    (query(images()) * key(images())).sum().backward()
    assert all(parameter.grad is None for parameter in key.parameters()) and query.head.weight.grad.abs().sum() > 0


@pytest.mark.parametrize("decay", [0.999, 0.9, 0.0, 1.0])
def test_the_key_encoder_follows_the_moving_average_of_the_query_encoder(decay):
    query, key = encoder(seed=1), key_encoder_of(encoder(seed=2))
    key.train()(images())  # gives it running statistics of its own
    wanted = references.moving_average([p.numpy() for p in key.parameters()], [p.detach().numpy() for p in query.parameters()], decay)
    buffers = {name: buffer.clone() for name, buffer in key.named_buffers()}
    kept = [parameter.detach().clone() for parameter in query.parameters()]
    move_towards(key, query, decay)
    for parameter, number in zip(key.parameters(), wanted, strict=True):
        assert np.allclose(parameter.numpy(), number, rtol=1e-6, atol=1e-8)
    assert all(torch.equal(a, b) for a, b in zip(query.parameters(), kept, strict=True))
    assert all(torch.equal(buffer, buffers[name]) for name, buffer in key.named_buffers())


def test_an_unknown_backbone_names_those_near_it():
    with pytest.raises(RequestError, match=r"must be a timm model, got 'resnt50'; near it: .*resnet50"):
        create_backbone("resnt50", channels=1, classes=0, weights="random", seed=0)
    with pytest.raises(RequestError, match=r"near it: .*densenet121"):
        create_backbone("densenet12", channels=1, classes=0, weights="random", seed=0)
    with pytest.raises(RequestError, match="must be a timm model, got ''"):
        create_backbone("", channels=1, classes=0, weights="random", seed=0)


@pytest.mark.parametrize("weights", ["random", "imagenet"])
def test_an_unknown_kind_of_published_weights_is_a_fault_of_the_request(weights):
    with pytest.raises(RequestError, match=r"resnet50\.nonsense.*a1_in1k"):
        create_backbone("resnet50.nonsense", channels=1, classes=0, weights=weights, seed=0)


@pytest.mark.parametrize("name", [TINY, "densenet121"])
def test_weights_that_cannot_be_reached_are_told_fast(no_network, name):
    from huggingface_hub import constants

    begun = time.monotonic()
    with pytest.raises(WeightsUnreachable, match=f"{name} are neither in the cache nor reachable"):
        create_backbone(name, channels=1, classes=0, weights="imagenet", seed=0)
    assert time.monotonic() - begun < 10
    assert constants.HF_HUB_OFFLINE is False


def test_a_model_without_published_weights_says_so(no_network):
    with pytest.raises(WeightsUnreachable, match=r"[Nn]o pretrained weights"):
        create_backbone("darknet17", channels=1, classes=0, weights="imagenet", seed=0)


def cache(folder, name, seed=3):
    """Published weights of `name` in the layout of the hub's cache, made here: 3 channels, 1000 classes."""
    torch.manual_seed(seed)
    model = timm.create_model(name)
    place = folder / "hub" / ("models--" + model.pretrained_cfg["hf_hub_id"].replace("/", "--"))
    (place / "refs").mkdir(parents=True)
    (place / "refs" / "main").write_text("0" * 40)
    (place / "snapshots" / ("0" * 40)).mkdir(parents=True)
    save_file(model.state_dict(), str(place / "snapshots" / ("0" * 40) / "model.safetensors"), metadata={"format": "pt"})
    return model.state_dict()


def test_cached_weights_load_by_timms_own_loader_without_a_network(no_network):
    published = cache(no_network, TINY)
    loaded = create_backbone(TINY, channels=1, classes=0, weights="imagenet", seed=0).state_dict()
    assert torch.allclose(
        loaded["conv1.0.weight"], published["conv1.0.weight"].sum(1, keepdim=True), atol=1e-6
    )  # timm: gray = sum over colours
    rest = loaded.keys() - {"conv1.0.weight"}
    assert rest and all(torch.equal(loaded[name], published[name]) for name in rest)


def test_the_new_head_of_published_weights_comes_from_the_seed(no_network):
    published = cache(no_network, TINY)
    heads = []
    for seed in (0, 0, 1):
        torch.rand(seed + 1)
        model = create_backbone(TINY, channels=1, classes=4, weights="imagenet", seed=seed)
        heads.append(model.get_classifier().weight)
        assert torch.equal(model.layer4[0].conv1.weight, published["layer4.0.conv1.weight"])
    assert heads[0].shape[0] == 4 and torch.equal(heads[0], heads[1]) and not torch.equal(heads[0], heads[2])


def test_a_host_that_answers_and_a_proxy_are_both_taken_for_a_way_out(no_network, monkeypatch):
    from huggingface_hub import constants

    assert not encoders._hub_answers()
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{server.getsockname()[1]}")
        assert encoders._hub_answers()
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    assert encoders._hub_answers()


def test_gray_levels_are_standardised_by_the_mean_over_imagenets_channels():
    config = timm.create_model(TINY).pretrained_cfg | {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
    level = torch.tensor([0.0, 0.5, 1.0])
    wanted = (level - sum(config["mean"]) / 3) / (sum(config["std"]) / 3)
    assert torch.allclose(standardise(level.view(3, 1, 1, 1)).flatten(), wanted, atol=1e-4)


def test_a_network_without_memory_has_the_names_and_shapes_of_one_and_what_has_memory_is_filled_there():
    with without_memory():
        bare = create_backbone("test_vit", channels=1, classes=2, weights="random", seed=0)
        filled = torch.zeros(2, device="cpu").fill_(3.0)
    real = create_backbone("test_vit", channels=1, classes=2, weights="random", seed=0)
    shapes = {name: tensor.shape for name, tensor in real.state_dict().items()}
    assert {name: tensor.shape for name, tensor in bare.state_dict().items()} == shapes and all(p.is_meta for p in bare.parameters())
    assert filled.tolist() == [3.0, 3.0]

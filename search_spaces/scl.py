"""SCL's tables 1, 2 and an own one (Chang et al., supervised contrastive learning for 24 chromosome classes), its search space, its presets.
Comes in: nothing. Goes out: STUDY. The baseline is the published method on ViT-S/8; expected there: 96.17 % accuracy on OGH-Fudan (91.64
without SCL), 84.28 % on ChrmNet (76.62), which no machine has seen before; 200 epochs of 2,000 steps."""

from optuna.distributions import CategoricalDistribution, FloatDistribution

from search_spaces._declare import Arm, Dimension, Preset, Study, Table

INTERNAL = "OGH-Fudan (internal)"
EXTERNAL = "ChrmNet (external)"
WITHOUT = {"lambda1": 0.0}

BACKBONES = (
    ("ViT-S/8", "vit_small_patch8_224", "vit_small_patch8_224"),
    ("ViT-L/14", "vit_large_patch14_clip_224", "vit_large_patch14_224"),  # timm has weights for this ViT-L/14 alone (CLIP's)
    ("DaViT-S", "davit_small", "davit_small"),
    ("DaViT-L", "davit_large", "davit_large"),
    ("Swin-S", "swin_small_patch4_window7_224", "swin_small_patch4_window7_224"),
    ("Swin-L", "swin_large_patch4_window7_224", "swin_large_patch4_window7_224"),
    ("ResNet-34", "resnet34", "resnet34"),
    ("ResNet-50", "resnet50", "resnet50"),
)

TABLES = (
    Table(
        "1",
        "Classifiers with and without SCL",
        INTERNAL,
        "ViT-S/8 without SCL",
        tuple(
            Arm(f"{title} {word} SCL", {"backbone": name} | overrides, f"{published}/{word}_scl")
            for title, name, published in BACKBONES
            for word, overrides in (("without", WITHOUT), ("with", {}))
        ),
        external_dataset=EXTERNAL,
    ),
    Table(
        "2",
        "Swin-L with SCL beside two chromosome classifiers",
        INTERNAL,
        "Swin-L with SCL",
        (Arm("Swin-L with SCL", {"backbone": "swin_large_patch4_window7_224"}, "swin_large_patch4_window7_224"),),
        external_dataset=EXTERNAL,
    ),
    Table(
        "S1",
        "With and without SCL on this preset's network",
        "",
        "without SCL",
        (Arm("without SCL", WITHOUT), Arm("with SCL", {})),
    ),
    Table(
        "S2",
        "Weight of the contrastive loss",
        "",
        "lambda1 = 0",
        tuple(Arm(f"lambda1 = {weight:g}", {"lambda1": weight}) for weight in (0.0, 0.1, 0.3, 1.0, 3.0)),
    ),
)

SPACE = {
    "lambda1": Dimension("lambda1", FloatDistribution(0.03, 3.0, log=True)),
    "lambda2": Dimension("lambda2", FloatDistribution(0.3, 3.0, log=True)),
    "focal_gamma": Dimension("focal_gamma", FloatDistribution(0.0, 5.0)),
    "temperature": Dimension("temperature", FloatDistribution(0.02, 0.5, log=True)),
    "embedding_dim": Dimension("embedding_dim", CategoricalDistribution((128, 256, 512, 1024, 2048))),
    "learning_rate": Dimension("learning_rate", FloatDistribution(1e-6, 1e-2, log=True)),
    "weight_decay": Dimension("weight_decay", FloatDistribution(0.0, 0.1)),
    "rotation": Dimension("rotation", FloatDistribution(0.0, 180.0)),
    "contrast": Dimension("contrast", FloatDistribution(0.0, 0.8)),
    "backbone": Dimension(
        "backbone",
        CategoricalDistribution(("vit_small_patch8_224", "davit_small", "swin_small_patch4_window7_224", "resnet34", "resnet50")),
    ),
    "groups": Dimension("groups", CategoricalDistribution((1, 2, 4))),
}

STUDY = Study(
    procedure="scl",
    objective="val_accuracy",
    intermediate="val_accuracy",
    metrics=("accuracy", "recall", "auc"),
    space=SPACE,
    tables=TABLES,
    presets={
        "quick": Preset(
            "minutes on a laptop's CPU: a small network at 64 pixels; with and without SCL, not the published level",
            {
                "normal_width": 13.3,  # pixels: half of all chromosomes are longer than 64 then, whatever the magnification
                "normal_gray": 190.0,  # whatever the stain and the exposure
                "upright": True,
                "canvas": 112,  # pixels: only chromosomes 1 and 2 are longer; a larger one shows no bands at 64 pixels
                "input_size": 64,
                "backbone": "test_efficientnet",  # of timm's smallest networks the best for two minutes of one core
                "embedding_dim": 128,
                "split": (0.8, 0.1, 0.1),  # a small set needs more than 2 in 100 images to choose by
                "epochs": 10,
                "steps_per_epoch": 200,
                "learning_rate": 6e-3,  # 2,000 steps in all: at 1e-5 the network would stay where it began
                "schedule": "cosine",
                "rotation": 0.0,  # degrees: each image is seen about eight times, and all stand upright
            },
            trials=4,
            repeats=3,
            tables=("S1",),
            synthetic_images=1104,  # 24 individuals
            space={
                "backbone": None,
                "groups": None,
                "embedding_dim": Dimension("embedding_dim", CategoricalDistribution((32, 64, 128, 256))),
                "learning_rate": Dimension("learning_rate", FloatDistribution(3e-4, 1e-2, log=True)),
            },
        ),
        "small": Preset(
            "an evening on one GPU: ResNet-18 at 128 pixels",
            {
                "input_size": 128,
                "backbone": "resnet18",
                "embedding_dim": 512,
                "split": (0.8, 0.1, 0.1),
                "epochs": 30,
                "steps_per_epoch": 500,
                "learning_rate": 3e-4,
                "schedule": "cosine",
            },
            trials=20,
            repeats=5,
            tables=("S1", "S2"),
            synthetic_images=9200,  # 200 individuals
            space={
                "backbone": Dimension("backbone", CategoricalDistribution(("resnet18", "resnet34"))),
                "learning_rate": Dimension("learning_rate", FloatDistribution(3e-5, 3e-3, log=True)),
            },
        ),
        "paper": Preset(
            "the published settings: 200 epochs of 2,000 steps at 224 pixels, eight backbones",
            {},
            trials=30,
            repeats=3,
            tables=("1", "2"),
            synthetic_images=25392,  # 552 individuals; the paper has 553
        ),
    },
)

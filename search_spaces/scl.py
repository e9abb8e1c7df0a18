"""SCL's tables 1, 2 and own ones (Chang et al., supervised contrastive learning for 24 chromosome classes), its search space, its presets.
Comes in: nothing. Goes out: STUDY. The baseline of `paper` is the published method on ViT-S/8 as its authors' program runs it, on images of
one look, which is ours; expected there: 96.17 % accuracy on OGH-Fudan (91.64 without SCL), 84.28 % on ChrmNet (76.62), which no machine has
seen before."""

from optuna.distributions import CategoricalDistribution, FloatDistribution

from search_spaces._declare import Arm, Dimension, Preset, Study, Table

INTERNAL = "OGH-Fudan (internal)"
EXTERNAL = "ChrmNet (external)"
WITHOUT = {"lambda1": 0.0}
VARIFOCAL = {"method": "varifocal"}  # Qin et al. 2019; from one network of a backbone like the others'
LITERAL = {"lambda1": 1.0, "contrast_sum": "equation", "contrast_balance": 0.0}  # Eq. 3 and 4 as they are printed
RECIPE = {  # of the authors' program (MIT, github.com/RuijiaChang/Chromosome-SCL-Encoder) beside its proportions
    "head": "code",
    "first_epochs": 1,
    "weight_decay": 0.01,
    "schedule": "decay",
    "rotation": 90.0,
    "flips": "vertical",
    "brightness": 0.2,
    "contrast": 0.2,
    "normalise": False,
    "keep": "best",
}
PROPORTIONS = {"lambda1": 1.0, "contrast_sum": "code", "contrast_balance": 0.0}

BACKBONES = (
    ("ViT-S/8", "vit_small_patch8_224", "vit_small_patch8_224"),
    ("ViT-L/14", "vit_large_patch14_224", "vit_large_patch14_224"),  # timm has no published weights for it
    ("DaViT-S", "davit_small", "davit_small"),
    ("DaViT-L", "davit_large", "davit_large"),
    ("Swin-S", "swin_small_patch4_window7_224", "swin_small_patch4_window7_224"),
    ("Swin-L", "swin_large_patch4_window7_224", "swin_large_patch4_window7_224"),
    ("ResNet-34", "resnet34", "resnet34"),
    ("ResNet-50", "resnet50", "resnet50"),
)

PUBLISHED = (  # as supcam's
    ("ImageNet", {"weights": "imagenet"}),
    ("DINOv3 ViT-S/16", {"backbone": "vit_small_patch16_dinov3", "weights": "vit_small_patch16_dinov3.lvd1689m"}),
    ("UNI", {"backbone": "vit_large_patch16_224(init_values=1e-05, dynamic_img_size=True)", "weights": "hf-hub:MahmoodLab/UNI"}),
    ("CHROMA", {"backbone": "vit_large_patch16_224", "weights": "hf-hub:Boyoungc/CHROMA_pretrain"}),
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
        (
            Arm("Swin-L with SCL", {"backbone": "swin_large_patch4_window7_224"}, "swin_large_patch4_window7_224"),
            Arm(
                "HRNet backbone (not the interleaved network), re-implemented from its description",
                WITHOUT | {"backbone": "hrnet_w18"},
                "hr_net",
            ),
            Arm("Varifocal-Net, re-implemented from its description", VARIFOCAL | {"backbone": "resnet50"}, "varifocal_net"),
        ),
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
        tuple(
            Arm(f"lambda1 = {weight:g}", {"lambda1": weight, "contrast_balance": 0.0}) for weight in (0.0, 0.02, 0.05, 0.1, 0.3, 1.0, 3.0)
        ),
    ),
    Table(
        "S3",
        "The contrast's proportions",
        "",
        "without SCL",
        (
            Arm("without SCL", WITHOUT),
            Arm("Eq. 3 read literally", LITERAL),
            Arm("the authors' program's", PROPORTIONS),
            *(
                Arm(f"{part:g} of the classification's gradient", {"lambda1": 1.0, "contrast_balance": part})
                for part in (0.03, 0.1, 0.3, 1.0)
            ),
        ),
    ),
    Table(
        "S4",
        "The authors' program, one thing at a time",
        "",
        "all of it",
        (
            Arm("all of it", PROPORTIONS | RECIPE),
            Arm("without SCL", PROPORTIONS | RECIPE | WITHOUT),
            Arm("one layer each before and after E", PROPORTIONS | RECIPE | {"head": "linear"}),
            Arm("no first epoch of its own", PROPORTIONS | RECIPE | {"first_epochs": 0}),
            Arm("a cosine", PROPORTIONS | RECIPE | {"schedule": "cosine"}),
            Arm("images normalised", PROPORTIONS | RECIPE | {"normalise": True}),
            Arm("the last epoch's weights", PROPORTIONS | RECIPE | {"keep": "last"}),
        ),
    ),
    Table(
        "F",
        "Features that stay as they are: a linear probe, or nearest neighbours",
        "",
        "without SCL",
        (
            Arm("without SCL", WITHOUT),
            *(
                Arm(f"{title}, {classifier}", overrides | {"classifier": classifier}, yardstick=True)
                for title, overrides in (("drawn weights", {"weights": "random"}), *PUBLISHED)
                for classifier in ("probe", "neighbours")
            ),
        ),
    ),
    Table(
        "S5",
        "A small HRNet beside this preset's network",
        "",
        "without SCL",
        (
            Arm("without SCL", WITHOUT),
            Arm("with SCL", {}),
            Arm(
                "HRNet backbone (not the interleaved network), re-implemented from its description, without SCL",
                WITHOUT | {"backbone": "hrnet_w18_small"},
            ),
        ),
    ),
    Table(
        "S6",
        "Varifocal-Net's two networks and phases on this preset's network",
        "",
        "without SCL",
        (
            Arm("without SCL", WITHOUT),
            Arm("without SCL, three times the epochs", WITHOUT, times={"epochs": 3}),  # Varifocal-Net's phases are nearly as many
            Arm("with SCL", {}),
            Arm("Varifocal-Net, re-implemented from its description", VARIFOCAL),
        ),
    ),
)

SPACE = {
    "contrast_balance": Dimension("contrast_balance", CategoricalDistribution((0.0, 0.03, 0.1, 0.3, 1.0))),
    "lambda1": Dimension("lambda1", FloatDistribution(0.01, 3.0, log=True), when={"contrast_balance": (0.0,)}),
    "contrast_sum": Dimension("contrast_sum", CategoricalDistribution(("equation", "code"))),
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
                "contrast_balance": 0.3,  # Eq. 3 and 4 with weights of 1 cost 8 to 10 points in 2,000 steps: see docs/results.md
                "part_epochs": 10,
                "both_epochs": 5,
                "fusion_epochs": 3,
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
                "normal_width": 15.2,  # pixels, as quick's: the same part of the canvas
                "normal_gray": 190.0,
                "upright": True,
                "rotation": 0.0,  # as quick's
                "canvas": 128,
                "input_size": 128,
                "backbone": "resnet18",
                "embedding_dim": 512,
                "split": (0.8, 0.1, 0.1),
                "epochs": 30,
                "steps_per_epoch": 500,
                "learning_rate": 3e-4,
                "schedule": "cosine",
                "contrast_balance": 0.3,  # as quick's
                "part_epochs": 30,
                "both_epochs": 15,
                "fusion_epochs": 5,
            },
            trials=20,
            repeats=5,
            tables=("S1", "S2", "S3"),
            synthetic_images=9200,  # 200 individuals
            space={
                "backbone": Dimension("backbone", CategoricalDistribution(("resnet18", "resnet34"))),
                "learning_rate": Dimension("learning_rate", FloatDistribution(3e-5, 3e-3, log=True)),
            },
        ),
        "paper": Preset(
            "the published settings as the authors' program has them: 100 epochs of 3,000 steps at 224 pixels, eight backbones; one size, "
            "gray and an upright axis of each image are ours, not the paper's",
            {
                "normal_width": 30.4,  # pixels, as quick's: the same part of the canvas
                "normal_gray": 190.0,
                "upright": True,  # as quick's; their views are turned by up to 90 degrees anyway, what is judged lay as its file had it
                "epochs": 100,
                "steps_per_epoch": 3000,
                "part_epochs": 100,
                "both_epochs": 50,
                "fusion_epochs": 10,
            }
            | PROPORTIONS
            | RECIPE,
            trials=30,
            repeats=3,
            tables=("1", "2", "S3"),
            synthetic_images=25392,  # 552 individuals; the paper has 553
        ),
    },
)

"""SupCAM's tables 1-6, its figure S1 and more of it (S1, S2), own ones S3 to S6 and F (Luo, Wu, Zhao 2023), its search space and its presets.
Comes in: nothing. Goes out: STUDY. The baseline of `paper` is the full method with the published settings (ResNet-50, middle table,
m = 0.2) on images of one look, which is ours; expected there: 93.56 +- 0.18 % accuracy on ChrCluster 60/10/30, ten seeds, one Titan Xp."""

from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from search_spaces._declare import Arm, Dimension, Preset, Study, Table

SIX_TWO = "ChrCluster 60/10/30"
EIGHT_ONE = "ChrCluster 80/10/10"
FULL = "SupCAM (full)"

NO_PRETRAIN = {"pretrain_epochs": 0}
SCRATCH = NO_PRETRAIN | {"weights": "random"}  # also where all other rows begin with weights that --set names
PLAIN = {"margin_form": "none", "composition": "off", "views": "moco_v2"}  # section 3.5.2: MoCo v2's views for these rows

LIN = NO_PRETRAIN | {  # Lin et al. 2021: the head alone, then all; Adam with decoupled decay
    "method": "lin2021",
    "frozen_epochs": 5,
    "finetune_epochs": 10,
    "weight_decay": 0.01,
    "rotation": 10.0,
    "zoom": 1.1,
}
OWN_WORDS = "re-implemented from its description"
PUBLISHED = (  # networks and the weights that others have published for them; on a machine that cannot have them a row says so
    ("ImageNet", {"weights": "imagenet"}),
    ("DINOv3 ViT-S/16", {"backbone": "vit_small_patch16_dinov3", "weights": "vit_small_patch16_dinov3.lvd1689m"}),
    ("UNI", {"backbone": "vit_large_patch16_224(init_values=1e-05, dynamic_img_size=True)", "weights": "hf-hub:MahmoodLab/UNI"}),
    ("CHROMA", {"backbone": "vit_large_patch16_224", "weights": "hf-hub:Boyoungc/CHROMA_pretrain"}),
)
MOCO = PLAIN | {"contrast": "info_nce"}
KEY_BATCHES = (  # whose statistics of batch normalisation the keys have
    ("split key batches", {"key_batch": "split"}),
    ("shuffled key batches", {"key_batch": "shuffled"}),
    ("keys in eval mode", {"key_batch": "running"}),
)

TABLES = (
    Table(
        "1",
        "Backbones, 80/10/10 split",
        EIGHT_ONE,
        "SupCAM, ResNet-101",
        (
            *(
                Arm(f"{row}{title}", {"split": (0.8, 0.1, 0.1), "backbone": name} | overrides, f"{published}/{key}{suffix}")
                for row, published, suffix, overrides in (
                    ("ImageNet, ", "lin2021", "/imagenet", NO_PRETRAIN | {"weights": "imagenet"}),
                    ("SupCAM, ", "supcam", "", {}),
                )
                for title, name, key in (
                    ("ResNet-101", "resnet101", "resnet101"),
                    ("DenseNet-121", "densenet121", "densenet121"),
                    ("ResNeXt-101 32x8d", "resnext101_32x8d", "resnext101_32x8d"),
                )
            ),
            Arm(
                f"Lin et al. 2021, ResNeXt-101 32x8d, {OWN_WORDS}",
                LIN | {"split": (0.8, 0.1, 0.1), "backbone": "resnext101_32x8d.fb_wsl_ig1b_ft_in1k", "weights": "imagenet"},
                "lin2021/resnext101_32x8d+header/instagram",
            ),
        ),
    ),
    Table(
        "2",
        "What each part of SupCAM brings",
        SIX_TWO,
        "Scratch",
        (
            Arm("Scratch", SCRATCH, "scratch"),
            Arm("ImageNet weights", NO_PRETRAIN | {"weights": "imagenet"}, "imagenet"),
            Arm("MoCo", MOCO, "moco"),
            Arm("MoCo + SupCon", PLAIN, "moco+supcon"),
            Arm("+ CatVar", {"margin_form": "none"}, "moco+supcon+catvar"),
            Arm(FULL, {}, "moco+supcon+catvar+self_margin"),
        ),
    ),
    Table(
        "3",
        "Blend of composed images where both are foreground",
        SIX_TWO,
        "equal",
        tuple(Arm(blend, {"blend": blend}, blend) for blend in ("equal", "lambda", "maximum")),
    ),
    Table(
        "4",
        "Look-up table of composed labels",
        SIX_TWO,
        "middle",
        tuple(Arm(table, {"composition": table}, table) for table in ("middle", "heavy", "light", "no")),
    ),
    Table(
        "5",
        "Angular margin of the self-margin loss",
        SIX_TWO,
        "m = 0.2",
        tuple(Arm(f"m = {m}", {"margin": m}, f"m={m}") for m in (0.1, 0.2, 0.3, 0.4, 0.5)),
    ),
    Table(
        "6",
        "Form of the angular margin",
        SIX_TWO,
        "self-margin",
        (
            Arm("self-margin", {}, "self_margin"),
            *(
                Arm(f"parametric margin, m = {m}", {"margin_form": "parametric_margin", "margin": m}, f"parametric_margin m={m}")
                for m in (0.2, 0.3, 0.4, 0.5)
            ),
            Arm("cluster margin", {"margin_form": "cluster_margin"}, "cluster_margin"),
            Arm("margin on all positives (Eq. 6)", {"margin_form": "all_margin"}),
        ),
    ),
    Table(
        "S1",
        "SupCAM started from ImageNet weights, 80/10/10 split",
        EIGHT_ONE,
        "SupCAM, ResNet-101",
        tuple(
            Arm(f"SupCAM, {title}{row}", {"split": (0.8, 0.1, 0.1), "backbone": name} | overrides)
            for row, overrides in (("", {}), (" from ImageNet", {"weights": "imagenet"}))
            for title, name in (("ResNet-101", "resnet101"), ("DenseNet-121", "densenet121"), ("ResNeXt-101 32x8d", "resnext101_32x8d"))
        ),
    ),
    Table(
        "S2",
        "Overlap threshold P (the paper's Fig. S1)",
        SIX_TWO,
        "P = 200",
        tuple(Arm(f"P = {pixels}", {"overlap_threshold": float(pixels)}) for pixels in (50, 100, 150, 200, 250, 300, 400)),
    ),
    Table(
        "S3",
        "Momentum contrast: moving average, queue, steps, and the statistics of keys",
        "",
        "Scratch",
        (
            Arm("Scratch", SCRATCH),
            *(
                Arm(f"MoCo {decay:g} x {keys}", MOCO | {"ema_decay": decay, "queue_size": keys})
                for decay in (0.9, 0.99, 0.999)
                for keys in (128, 1024)
            ),
            *(
                Arm(
                    f"MoCo {decay:g} x 1024, four times the epochs",
                    MOCO | {"ema_decay": decay, "queue_size": 1024},
                    times={"pretrain_epochs": 4},
                )
                for decay in (0.9, 0.99, 0.999)
            ),
            *(Arm(f"MoCo 0.99 {words}", MOCO | {"ema_decay": 0.99} | overrides) for words, overrides in KEY_BATCHES),
            Arm("MoCo 0.99 own old keys masked", MOCO | {"ema_decay": 0.99, "mask_own": True}),
            *(Arm(f"SupCAM (full) {decay:g}", {"ema_decay": decay}) for decay in (0.9, 0.99, 0.999)),
            *(Arm(f"SupCAM (full) 0.99 {words}", {"ema_decay": 0.99} | overrides) for words, overrides in KEY_BATCHES),
        ),
    ),
    Table(
        "F",
        "Features that stay as they are: a linear probe, or nearest neighbours",
        "",
        "Scratch",
        (
            Arm("Scratch", SCRATCH),
            *(
                Arm(f"{title}, {words}", NO_PRETRAIN | overrides | {"classifier": classifier}, yardstick=True)
                for title, overrides in (("drawn weights", {"weights": "random"}), *PUBLISHED)
                for words, classifier in (("probe", "probe"), ("neighbours", "neighbours"))
            ),
            *(
                Arm(f"{title}, {words}", overrides | {"classifier": classifier}, yardstick=True)
                for title, overrides in (("MoCo", MOCO), ("SupCAM (full)", {}))
                for words, classifier in (("probe", "probe"), ("neighbours", "neighbours"))
            ),
        ),
    ),
    Table(
        "S4",
        "Lin et al.'s head and phases, and SupCAM, on this preset's network",
        "",
        "Scratch",
        (
            Arm("Scratch", SCRATCH),
            Arm(f"Lin et al. 2021, {OWN_WORDS}", LIN),
            Arm(
                f"Lin et al. 2021, {OWN_WORDS}, rates for random weights",
                LIN | {"frozen_rate": 4e-3, "head_rate": 4e-3, "body_rate": 1e-3},
            ),
            Arm(FULL, {}),
        ),
    ),
    Table(
        "S5",
        "Scale as an augmentation, and turns in judging",
        "",
        "Scratch",
        (
            Arm("Scratch", SCRATCH),
            *(Arm(f"zoom {factor}", NO_PRETRAIN | {"zoom": factor}) for factor in (1.25, 1.5, 2.0)),
            Arm("judged in one position", NO_PRETRAIN | {"every_turn": False}),
        ),
    ),
    Table(  # a run of the full method is longer than one of Scratch by its pre-training
        "S6",
        "The full method against a training from scratch of as many epochs",
        "",
        "Scratch, as many epochs",
        (
            Arm(
                "Scratch, as many epochs",
                SCRATCH,
                plus={"finetune_epochs": "pretrain_epochs"},
                along={"rate_drops": "finetune_epochs"},
            ),
            Arm("Scratch", SCRATCH),
            Arm(FULL, {}),
        ),
    ),
)

SUP_CON = {"contrast": ("sup_con",)}  # a margin is added to Eq. 4 alone
OF_LIN = {"method": ("lin2021",)}  # asked for by --retune alone
COMPOSED = {"composition": ("light", "middle", "heavy")}
SPACE = {
    "margin_form": Dimension(
        "margin_form", CategoricalDistribution(("none", "self_margin", "parametric_margin", "cluster_margin")), SUP_CON
    ),
    "margin.self": Dimension("margin", FloatDistribution(0.0, 0.5), {"margin_form": ("self_margin",)}),
    "margin.class": Dimension("margin", FloatDistribution(0.0, 0.8), {"margin_form": ("parametric_margin", "cluster_margin")}),
    "temperature": Dimension("temperature", FloatDistribution(0.03, 0.5, log=True)),
    "composition": Dimension("composition", CategoricalDistribution(("off", "no", "light", "middle", "heavy"))),
    "blend": Dimension("blend", CategoricalDistribution(("equal", "lambda", "maximum")), COMPOSED),
    "overlap_threshold": Dimension("overlap_threshold", FloatDistribution(25.0, 800.0, log=True), COMPOSED),
    "require_contact": Dimension("require_contact", CategoricalDistribution((False, True)), COMPOSED),
    "backbone": Dimension("backbone", CategoricalDistribution(("resnet50", "resnet18", "densenet121", "resnext50_32x4d"))),
    "pretrain_rate": Dimension("pretrain_rate", FloatDistribution(0.003, 0.3, log=True)),
    "finetune_rate": Dimension("finetune_rate", FloatDistribution(0.001, 0.1, log=True)),
    "frozen_rate": Dimension("frozen_rate", FloatDistribution(1e-5, 1e-2, log=True), OF_LIN | {"frozen_epochs": (5,)}),
    "head_rate": Dimension("head_rate", FloatDistribution(1e-6, 1e-2, log=True), OF_LIN),
    "body_rate": Dimension("body_rate", FloatDistribution(1e-7, 1e-3, log=True), OF_LIN),
    "weight_decay": Dimension("weight_decay", FloatDistribution(1e-6, 1e-2, log=True)),
    "ema_decay": Dimension("ema_decay", FloatDistribution(0.9, 0.9999)),
    "queue_size": Dimension("queue_size", IntDistribution(256, 4096, log=True)),
    "embedding_dim": Dimension("embedding_dim", CategoricalDistribution((32, 64, 128, 256))),
    "crop_min": Dimension("crop_min", FloatDistribution(0.08, 0.9)),
    "zoom": Dimension("zoom", FloatDistribution(1.0, 2.0)),
}

STUDY = Study(
    procedure="supcam",
    objective="val_accuracy",
    intermediate="val_knn_accuracy",
    metrics=("accuracy", "precision", "sensitivity", "specificity", "f1"),
    space=SPACE,
    tables=TABLES,
    presets={
        "quick": Preset(
            "minutes on a laptop's CPU: a small network at 64 pixels; shows orderings, not the published level",
            {
                "backbone": "test_resnet",
                "input_size": 64,
                "normal_width": 15.0,  # pixels: as the given clusters have it, whatever the magnification
                "normal_gray": 190.0,  # whatever the stain and the exposure
                "every_turn": True,
                "pretrain_epochs": 6,
                "warmup_epochs": 1,
                "pretrain_rate": 0.1,
                "ema_decay": 0.9,  # a few hundred steps in all: at 0.999 the key encoder would stay where it began
                "crop_min": 0.5,  # at 64 pixels a crop of 0.2 is too small to show the type
                "finetune_epochs": 10,
                "rate_drops": (6, 9),
            },
            trials=6,
            repeats=3,
            tables=("2", "5", "S6"),
            space={"backbone": None},
        ),
        "small": Preset(
            "an evening on one GPU: ResNet-18 at 128 pixels",
            {
                "backbone": "resnet18",
                "input_size": 128,
                "normal_width": 15.0,  # as quick's
                "normal_gray": 190.0,
                "every_turn": True,
                "pretrain_epochs": 60,
                "warmup_epochs": 6,
                "ema_decay": 0.996,
            },
            trials=20,
            repeats=5,
            tables=("2", "3", "4", "5", "S6"),
            space={"backbone": Dimension("backbone", CategoricalDistribution(("resnet18", "resnet34", "densenet121")))},
            synthetic_images=2000,
        ),
        "paper": Preset(
            "the published settings: 200 + 15 epochs of ResNet-50 at 224 pixels, ten seeds; one size, gray and four turns of each image "
            "are ours, not the paper's",
            {"normal_width": 15.0, "normal_gray": 190.0, "every_turn": True},  # as quick's, on the same canvas
            trials=50,
            repeats=10,
            tables=("1", "2", "3", "4", "5", "6", "S1", "S2", "S6"),
            synthetic_images=6592,
        ),
    },
    objectives={"knn": "val_knn_accuracy", "probe": "val_probe_accuracy"},  # of the pre-training: fine-tuning has no say
)

"""CCRL's tables 2 (CoNSeP; NuCLS: 2N) and 3, own ones S1 and F (Nakhli et al., Contrastive Cell Representation Learning), its search space,
its presets. Comes in: nothing. Goes out: STUDY. The baseline of `paper` is the published method (pre-activation ResNet-18, 500 epochs), what
the paper leaves open as in its authors' later code; expected there: AMI 24.2, ARI 21.7, purity 51.8 % on CoNSeP, 22.8, 24.0, 68.3 % on NuCLS."""

from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from search_spaces._declare import Arm, Dimension, Preset, Study, Table

# What no training is needed for: each stands beside the method in every table, with the same cells, clustering and scores.
YARDSTICKS = tuple(
    Arm(name, {"features": features} | ({"weights": "random"} if features == "untrained" else {}), yardstick=True)
    for name, features in (
        ("nine colour numbers", "colours"),
        ("the tile's number", "tile"),
        ("area of the nucleus", "area"),
        ("untrained encoder", "untrained"),
        ("raw pixels", "pixels"),
        ("colour histograms", "histograms"),
    )
)
# Others' rows of table 2. An auto-encoder's clusters are those of its own centres, which are fitted on the training part.
DCEC = {"method": "dcec", "embedding_dim": 10, "pretrain_batch": 256, "kmeans_fit": "train"}
GAN = {"method": "gan", "kmeans_fit": "train"}  # clusters are those that its own head names
OF_DCEC = {"reconstruct_epochs": 200, "cluster_epochs": 100}
OF_GAN = {"gan_epochs": 50, "gan_batch": 10, "gan_width": 128, "gan_copies": 4}
TRAINED = (
    Arm("DCEC auto-encoder, re-implemented from its description", DCEC, "auto_encoder", described=OF_DCEC),
    Arm("GAN, re-implemented from its description", GAN, "infogan", described=OF_GAN),
)
# And those that need no training either. The paper names neither a network nor the thirty numbers.
FOREIGN = (
    Arm(
        "ImageNet features, ResNet-50",
        {"features": "backbone", "backbone": "resnet50", "weights": "imagenet"},
        "pretrained_imagenet",
        yardstick=True,
    ),
    Arm("ImageNet features, ResNet-18", {"features": "backbone", "backbone": "resnet18", "weights": "imagenet"}, yardstick=True),
    Arm("untrained ResNet-18", {"features": "backbone", "backbone": "resnet18", "weights": "random"}, yardstick=True),
    Arm("morphological, re-implemented from its description", {"features": "morphology"}, "morphological", yardstick=True),
    Arm("SIFT and LBP, re-implemented from its description", {"features": "texture"}, "manual_features", yardstick=True),
)
# What the paper leaves open: read off its words and figures, and as its authors' later code has it (VOLTA).
PRINTED = {"head_norm": False, "symmetric": False, "local_side": "query", "statistics": "imagenet"}
LATER = {"head_norm": True, "symmetric": True, "local_side": "key", "statistics": "set"}

TABLES = (
    Table("2", "Unsupervised clusters, CoNSeP", "CoNSeP", "CCRL", (Arm("CCRL", {}, "ccrl"), *TRAINED, *FOREIGN, *YARDSTICKS)),
    Table(
        "2N",
        "Unsupervised clusters, NuCLS",
        "NuCLS",
        "CCRL",
        (Arm("CCRL", {}, "ccrl"), *TRAINED, *FOREIGN, *YARDSTICKS),
        published_number="2",
    ),
    Table(
        "3",
        "What each part of CCRL brings",
        "NuCLS",
        "with all",
        (
            Arm("without local-global", {"local_side": "both"}, "without_local_global"),
            Arm("without ensembling", {"scoring_encoder": "query"}, "without_ensembling"),
            Arm("without predictor", {"predictor": False}, "without_prediction_head"),
            Arm("with all", {}, "all"),
            *YARDSTICKS,
        ),
    ),
    Table(
        "S1",
        "What the views, the negatives and the scoring bring",
        "",
        "as printed",
        (
            Arm("as printed", PRINTED),
            Arm("the key crops", PRINTED | {"local_side": "key"}),
            Arm("both crop", PRINTED | {"local_side": "both"}),
            Arm("both directions", PRINTED | {"symmetric": True}),
            Arm("normalised heads", PRINTED | {"head_norm": True}),
            Arm("the set's own statistics", PRINTED | {"statistics": "set"}),
            Arm("authors' later code", LATER),
            Arm("authors' later code, no jitter, no gray", LATER | {"jitter": 0.0, "gray": 0.0}),
            Arm("no gray", PRINTED | {"gray": 0.0}),
            Arm("no jitter, no gray", PRINTED | {"jitter": 0.0, "gray": 0.0}),
            Arm("stain jitter in their place", PRINTED | {"jitter": 0.0, "gray": 0.0, "stain": 0.1}),
            Arm("own old keys masked", PRINTED | {"mask_own": True}),
            Arm("temperature 0.05", PRINTED | {"temperature": 0.05}),
            Arm("temperature 0.5", PRINTED | {"temperature": 0.5}),
            Arm("mean over eight positions", PRINTED | {"every_turn": True}),
            Arm("whitened", PRINTED | {"whiten": 0.99}),
            Arm("whitened, no jitter, no gray", PRINTED | {"whiten": 0.99, "jitter": 0.0, "gray": 0.0}),
            *YARDSTICKS,
        ),
    ),
    Table(
        "F",
        "Published features that stay as they are",
        "",
        "CCRL",
        (
            Arm("CCRL", {}),
            *(
                Arm(title, {"features": "backbone"} | overrides, yardstick=True)
                for title, overrides in (
                    ("ImageNet, ResNet-18", {"backbone": "resnet18", "weights": "imagenet"}),
                    ("DINOv3 ViT-S/16", {"backbone": "vit_small_patch16_dinov3", "weights": "vit_small_patch16_dinov3.lvd1689m"}),
                    (
                        "UNI",
                        {
                            "backbone": "vit_large_patch16_224(init_values=1e-05, dynamic_img_size=True)",
                            "weights": "hf-hub:MahmoodLab/UNI",
                        },
                    ),
                )
            ),
            *YARDSTICKS,
        ),
    ),
)

SPACE = {
    "temperature": Dimension("temperature", FloatDistribution(0.03, 0.5, log=True)),
    "ema_decay": Dimension("ema_decay", FloatDistribution(0.9, 0.9999)),
    "queue_size": Dimension("queue_size", IntDistribution(1024, 65536, log=True)),
    "pretrain_rate": Dimension("pretrain_rate", FloatDistribution(1e-4, 1e-2, log=True)),
    "weight_decay": Dimension("weight_decay", FloatDistribution(1e-6, 1e-2, log=True)),
    "crop_min": Dimension("crop_min", FloatDistribution(0.08, 0.9)),
    "jitter": Dimension("jitter", FloatDistribution(0.0, 1.0)),
    "gray": Dimension("gray", FloatDistribution(0.0, 0.5)),
    "stain": Dimension("stain", FloatDistribution(0.0, 0.2)),
    "mask_own": Dimension("mask_own", CategoricalDistribution((False, True))),
    "symmetric": Dimension("symmetric", CategoricalDistribution((False, True))),
    "head_norm": Dimension("head_norm", CategoricalDistribution((False, True))),
    "jitter_strength": Dimension("jitter_strength", FloatDistribution(0.05, 1.5)),
    "projector_hidden": Dimension("projector_hidden", CategoricalDistribution((64, 128, 256, 512))),
    "embedding_dim": Dimension("embedding_dim", CategoricalDistribution((32, 64, 128))),
    "predictor_hidden": Dimension("predictor_hidden", CategoricalDistribution((16, 32, 64, 128)), {"predictor": (True,)}),
    "local_side": Dimension("local_side", CategoricalDistribution(("query", "key", "both"))),
    "cluster_weight": Dimension("cluster_weight", FloatDistribution(0.01, 1.0, log=True), {"method": ("dcec",)}),  # by --retune alone
    "gan_rate": Dimension("gan_rate", FloatDistribution(1e-5, 1e-3, log=True), {"method": ("gan",)}),
    "category_weight": Dimension("category_weight", FloatDistribution(0.1, 10.0, log=True), {"method": ("gan",)}),
    "backbone": Dimension("backbone", CategoricalDistribution(("cell_preact_resnet18", "resnet18", "resnet34"))),
}

STUDY = Study(
    procedure="ccrl",
    objective="val_ami",
    intermediate="val_early_ami",
    metrics=("ami", "ari", "purity", "ami_within", "ami_given_tile", "probe_accuracy", "knn_accuracy"),
    space=SPACE,
    tables=TABLES,
    presets={
        "quick": Preset(
            "minutes on a laptop's CPU: a tiny network, a few epochs; shows that it learns, not the published level",
            {
                "backbone": "cell_preact_tiny",
                "feature_side": 64,  # pixels; at 224 a row of ResNet-50 is half an hour of one core
                "pretrain_epochs": 6,  # on real cells the validation AMI is highest after 4 to 6 epochs and falls from there
                "pretrain_batch": 256,
                "temperature": 0.2,
                "crop_min": 0.8,  # a smaller crop of 32 pixels hides the cell: validation AMI 26 at 0.2, 29 at 0.5, 31 at 0.8
                "warmup_epochs": 1,
                "queue_size": 4096,
                "ema_decay": 0.99,  # a few hundred steps in all: at 0.999 the key encoder would stay where it began
                "reconstruct_epochs": 10,
                "cluster_epochs": 10,
                "target_steps": 1,  # at the end of each epoch
                "gan_epochs": 2,  # a cut, as the other three: as described it takes two days of two cores
                "gan_batch": 64,
                "gan_width": 32,
                "gan_copies": 1,
            },
            trials=4,
            repeats=3,
            tables=("3",),
            synthetic_images=1200,
            space={"backbone": None, "queue_size": Dimension("queue_size", IntDistribution(256, 4096, log=True))},
        ),
        "small": Preset(
            "an evening on one GPU: the published network for 100 epochs",
            {"pretrain_epochs": 100, "warmup_epochs": 5, "pretrain_batch": 512, "ema_decay": 0.996}
            | OF_DCEC
            | OF_GAN
            | {"gan_batch": 64},  # a cut: a sixth of the steps, which at 10 crops are launches and little else
            trials=20,
            repeats=5,
            tables=("2", "3"),
            synthetic_images=4000,
        ),
        "paper": Preset(
            "the published settings: 500 epochs of pre-activation ResNet-18, batches of 1,024; what the paper leaves open as in its authors' later code",
            LATER | OF_DCEC | OF_GAN,
            trials=50,
            repeats=5,
            tables=("2", "2N", "3"),
            synthetic_images=24319,
        ),
    },
    objectives={"unsupervised": "val_silhouette", "knn": "val_knn_accuracy", "probe": "val_probe_accuracy"},
)

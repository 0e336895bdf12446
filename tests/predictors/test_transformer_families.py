"""DINOv2 and ViT classifiers and segmenters, the DETR family, and EoMT: tiny random models against
their library's own results; and what has no classes to score.
"""

import numpy as np
import pytest
import torch
import transformers as hf

from stillrobust.errors import UserError
from stillrobust.predictors import open_predictor
from tests.predictors.test_predictors import IMAGES, info_of, predictions

NAMES = {"id2label": dict(enumerate(("tall", "wide", "other")))}
NAMES["label2id"] = {name: number for number, name in NAMES["id2label"].items()}
SMALL = {
    "hidden_size": 16,
    "num_hidden_layers": 4,
    "num_attention_heads": 2,
    "intermediate_size": 16,
    "image_size": 32,
    "patch_size": 8,
}
RESNET = {"embedding_size": 8, "hidden_sizes": [8, 8, 16, 16], "depths": [1] * 4}
TRANSFORMER = {"d_model": 32, "num_queries": 7, "encoder_layers": 1, "decoder_layers": 2}
HEADS = {
    **dict.fromkeys(("encoder_attention_heads", "decoder_attention_heads"), 2),
    **dict.fromkeys(("encoder_ffn_dim", "decoder_ffn_dim"), 16),
}
SQUARE = {"height": 64, "width": 64}


def save(folder, model, processor):
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return model.eval()


def resnet(*stages):
    return hf.ResNetConfig(**RESNET, layer_type="basic", out_features=list(stages))


# ---- classifiers


@pytest.mark.parametrize("kind", ["Dinov2", "Dinov2WithRegisters", "DeiT", "ConvNext", "Siglip"])
def test_classifiers(tmp_path, kind):
    if kind == "ConvNext":
        config = hf.ConvNextConfig(hidden_sizes=[8] * 4, depths=[1] * 4, **NAMES)
    elif kind == "Siglip":
        config = hf.SiglipConfig(vision_config=SMALL, **NAMES)
    else:
        config = getattr(hf, f"{kind}Config")(**SMALL, **NAMES)
    processor = hf.ViTImageProcessor(size={"height": 32, "width": 32})
    model = save(tmp_path, getattr(hf, f"{kind}ForImageClassification")(config), processor)
    _, found = predictions(f"transformers:{tmp_path}", info_of("classification"))
    with torch.no_grad():
        logits = model(**processor(IMAGES, return_tensors="pt")).logits[:, [1, 0]]
    assert np.allclose(
        np.stack([one.probabilities for one in found]), logits.softmax(1).numpy(), atol=1e-5
    )


def test_a_backbone_without_its_classifier_is_refused(tmp_path):
    model = hf.Dinov2Model(hf.Dinov2Config(**SMALL))
    save(tmp_path, model, hf.ViTImageProcessor(size={"height": 32, "width": 32}))
    with pytest.raises(UserError, match=r"missing \(classifier.*trained for classification"):
        open_predictor(f"transformers:{tmp_path}", info_of("classification", ("LABEL_0",)))


# ---- segmenters


def segmenter(kind):
    if kind == "DPT":
        config = hf.DPTConfig(
            **SMALL,
            backbone_out_indices=[0, 1, 2, 3],
            neck_hidden_sizes=[8] * 4,
            fusion_hidden_size=8,
            use_auxiliary_head=False,
            is_hybrid=False,
            **NAMES,
        )
        return hf.DPTForSemanticSegmentation(config), {"height": 32, "width": 32}
    if kind == "BEiT":
        config = hf.BeitConfig(**SMALL, out_indices=[1, 2, 3, 4], pool_scales=[1, 2], **NAMES)
        return hf.BeitForSemanticSegmentation(config), {"height": 32, "width": 32}
    backbone = hf.ConvNextConfig(
        hidden_sizes=[8] * 4, depths=[1] * 4, out_features=["stage1", "stage2", "stage3", "stage4"]
    )
    config = hf.UperNetConfig(
        backbone_config=backbone,
        hidden_size=8,
        pool_scales=[1, 2],
        auxiliary_in_channels=8,
        auxiliary_channels=8,
        **NAMES,
    )
    return hf.UperNetForSemanticSegmentation(config), SQUARE


@pytest.mark.parametrize("kind", ["DPT", "BEiT", "UPerNet on ConvNeXt"])
def test_segmenters(tmp_path, kind):
    model, size = segmenter(kind)
    processor = hf.ViTImageProcessor(size=size)
    model = save(tmp_path, model, processor)
    _, found = predictions(f"transformers:{tmp_path}", info_of("segmentation"))
    for image, one in zip(IMAGES, found, strict=True):
        with torch.no_grad():
            logits = model(**processor(image, return_tensors="pt")).logits[:, [1, 0]]
        resized = torch.nn.functional.interpolate(logits, image.shape[:2], mode="bilinear")
        assert (one.label_map == resized.argmax(1)[0].numpy()).all()


@pytest.mark.parametrize("split", [False, True])
def test_eomt_of_whole_and_of_cut_images(tmp_path, split):
    """The library's own label maps, also where it cuts a long image into squares."""
    config = hf.EomtConfig(**{**SMALL, "image_size": 32}, num_queries=6, num_blocks=1, **NAMES)
    processor = hf.EomtImageProcessor(
        size={"shortest_edge": 32, "longest_edge": 32 if not split else None},
        do_split_image=split,
        do_pad=not split,
    )
    torch.manual_seed(0)
    model = hf.EomtForUniversalSegmentation(config)
    with torch.no_grad():  # queries of different classes, whose masks are of parts of the image
        model.query.weight.normal_(0, 20)
        model.class_predictor.weight.normal_(0, 5)
        model.mask_head.fc3.weight.normal_(0, 5)
    model = save(tmp_path, model, processor)
    classes, shares = ("tall", "wide", "other"), []
    _, found = predictions(f"transformers:{tmp_path}", info_of("segmentation", classes))
    for image, one in zip(IMAGES, found, strict=True):
        with torch.no_grad():
            answer = model(**processor(image, return_tensors="pt"))
        expected = processor.post_process_semantic_segmentation(answer, [image.shape[:2]])[0]
        shares.append(np.bincount(expected.flatten().numpy()).max() / expected.numel())
        assert split == (len(answer.class_queries_logits) > 1)
        assert (one.label_map == expected.numpy()).mean() > 0.99
    assert max(shares) < 0.9, "no map is of one class"


# ---- the DETR family


def detector(kind):
    """A tiny model of each family and the processor that belongs to it."""
    stages = ["stage2", "stage3", "stage4"]
    sizes = {"size": {"shortest_edge": 48, "longest_edge": 80}}
    if kind == "Yolos":
        config = hf.YolosConfig(
            **{**SMALL, "image_size": [64, 64]}, num_detection_tokens=5, **NAMES
        )
        return hf.YolosForObjectDetection(config), hf.YolosImageProcessor(**sizes)
    if kind in ("Detr", "ConditionalDetr", "DeformableDetr"):
        options = {"backbone_config": resnet("stage4"), **TRANSFORMER, **HEADS}
        if kind == "DeformableDetr":
            options |= {
                "backbone_config": resnet(*stages),
                "num_feature_levels": 4,
                "encoder_n_points": 2,
                "decoder_n_points": 2,
            }
            sizes = {"size": {"shortest_edge": 96, "longest_edge": 160}}
        config = getattr(hf, f"{kind}Config")(**options, use_timm_backbone=False, **NAMES)
        return getattr(hf, f"{kind}ForObjectDetection")(config), getattr(
            hf, f"{kind}ImageProcessor"
        )(**sizes)
    config = getattr(hf, f"{kind}Config")(
        backbone_config=hf.RTDetrResNetConfig(**RESNET, layer_type="basic", out_features=stages),
        encoder_in_channels=[8, 16, 16],
        encoder_hidden_dim=16,
        d_model=16,
        decoder_in_channels=[16, 16, 16],
        num_queries=7,
        num_denoising=0,
        decoder_layers=2,
        **HEADS,
        **NAMES,
    )
    return getattr(hf, f"{kind}ForObjectDetection")(config), hf.RTDetrImageProcessor(size=SQUARE)


@pytest.mark.parametrize(
    "kind", ["Yolos", "Detr", "ConditionalDetr", "DeformableDetr", "RTDetr", "RTDetrV2"]
)
def test_detectors(tmp_path, kind):
    """The library's own boxes of each image alone, predicted beside one of another size."""
    model, processor = detector(kind)
    model = save(tmp_path, model, processor)
    info = info_of("detection", ("other", "tall", "wide"))
    predictor, found = predictions(f"transformers:{tmp_path}", info)
    assert not predictor.masks
    for image, one in zip(IMAGES, found, strict=True):
        with torch.no_grad():
            answer = model(**processor(images=image, return_tensors="pt"))
        (expected,) = processor.post_process_object_detection(
            answer, threshold=0.0, target_sizes=[image.shape[:2]]
        )
        assert len(expected["scores"])
        assert np.allclose(one.scores, expected["scores"].numpy(), atol=1e-5)
        # the data's classes are the model's in another order
        assert (one.labels == (expected["labels"].numpy() + 1) % 3).all()
        limits = [image.shape[1], image.shape[0]] * 2
        assert np.allclose(one.boxes, expected["boxes"].numpy().clip(0, limits), atol=1e-3)


# ---- without classes


@pytest.mark.parametrize(
    ("config", "task", "reason"),
    [
        (hf.SamConfig, "segmentation", "masks without classes, for given points or boxes"),
        (hf.SamConfig, "detection", "masks without classes, for given points or boxes"),
        (hf.Owlv2Config, "detection", "finds what a text names"),
        (hf.BlipConfig, "classification", "compares an image with texts"),
        (hf.ViTConfig, "detection", "has no head for detection in transformers"),
    ],
)
def test_what_has_no_classes_is_refused_with_the_reason(tmp_path, config, task, reason):
    config().save_pretrained(tmp_path)
    with pytest.raises(UserError, match=reason):
        open_predictor(f"transformers:{tmp_path}", info_of(task))

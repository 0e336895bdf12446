"""Models of transformers, randomly initialised, against the library's own results."""

import json

import numpy as np
import pytest
import torch

from stillrobust.errors import UserError
from stillrobust.predictors import open_predictor
from tests.predictors.test_predictors import IMAGES, info_of, predictions


def transformers_folder(folder, task):
    """A small model of its library with the processor that belongs to it, as ``save_pretrained``
    writes them.
    """
    import transformers as hf

    names = {
        "id2label": {0: "tall", 1: "wide", 2: "other"},
        "label2id": {"tall": 0, "wide": 1, "other": 2},
    }
    torch.manual_seed(0)
    small = {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 32,
    }
    if task == "classification":
        model = hf.ViTForImageClassification(
            hf.ViTConfig(image_size=32, patch_size=8, **small, **names)
        )
        processor = hf.ViTImageProcessor(size={"height": 32, "width": 32})
    elif task == "detection":
        model = hf.YolosForObjectDetection(
            hf.YolosConfig(image_size=[64, 64], num_detection_tokens=5, **small, **names)
        )
        processor = hf.YolosImageProcessor(size={"shortest_edge": 64, "longest_edge": 96})
    elif task == "segmentation":
        config = hf.SegformerConfig(
            hidden_sizes=[8, 16, 16, 16],
            depths=[1] * 4,
            num_attention_heads=[1] * 4,
            decoder_hidden_size=16,
            **names,
        )
        model = hf.SegformerForSemanticSegmentation(config)
        processor = hf.SegformerImageProcessor(size={"height": 64, "width": 64})
    else:
        swin = hf.SwinConfig(
            image_size=64,
            embed_dim=8,
            depths=[1] * 4,
            num_heads=[1] * 4,
            window_size=2,
            out_features=["stage1", "stage2", "stage3", "stage4"],
        )
        config = hf.Mask2FormerConfig(
            backbone_config=swin,
            feature_size=32,
            mask_feature_size=32,
            hidden_dim=32,
            encoder_feedforward_dim=32,
            encoder_layers=1,
            decoder_layers=2,
            num_attention_heads=2,
            dim_feedforward=16,
            num_queries=6,
            **names,
        )
        model = hf.Mask2FormerForUniversalSegmentation(config)
        processor = hf.Mask2FormerImageProcessor(size={"height": 64, "width": 64}, num_labels=3)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return model.eval(), processor


@pytest.mark.parametrize("kind", ["classification", "detection", "segmentation", "instances"])
def test_transformers(kind, tmp_path):
    """The data knows two of its three classes, in the other order."""
    model, processor = transformers_folder(tmp_path / "small", kind)
    task = "detection" if kind == "instances" else kind
    predictor, found = predictions(f"transformers:{tmp_path / 'small'}", info_of(task))
    assert predictor.masks == (kind == "instances")
    if kind == "classification":
        with torch.no_grad():
            logits = model(**processor(images=IMAGES, return_tensors="pt")).logits[:, [1, 0]]
        assert np.allclose(
            np.stack([one.probabilities for one in found]), logits.softmax(1).numpy(), atol=1e-6
        )
    if kind == "segmentation":
        with torch.no_grad():
            logits = model(**processor(images=IMAGES[0], return_tensors="pt")).logits[:, [1, 0]]
        resized = torch.nn.functional.interpolate(
            logits, IMAGES[0].shape[:2], mode="bilinear"
        ).argmax(1)[0]
        assert (found[0].label_map == resized.numpy()).all()
    if kind in ("detection", "instances"):
        assert len(found[0].boxes)
        assert set(found[0].labels) <= {0, 1}


def test_mask2former_on_semantic_maps(tmp_path):
    """The label maps of the library's own processor, in the data's classes."""
    model, processor = transformers_folder(tmp_path / "small", "instances")
    _, found = predictions(
        str(tmp_path / "small"), info_of("segmentation", ("other", "tall", "wide"))
    )
    with torch.no_grad():
        answer = model(**processor(images=IMAGES[:1], return_tensors="pt"))
    expected = processor.post_process_semantic_segmentation(answer, [IMAGES[0].shape[:2]])[0]
    theirs = np.array([1, 2, 0])[expected.numpy()]  # tall, wide, other
    # the library resizes twice, which moves borders
    assert (found[0].label_map == theirs).mean() > 0.95


def test_a_transformer_of_one_channel_gets_grey_images(tmp_path):
    import cv2
    import transformers as hf

    names = {"id2label": {0: "tall", 1: "wide"}, "label2id": {"tall": 0, "wide": 1}}
    config = hf.ResNetConfig(
        num_channels=1, embedding_size=8, hidden_sizes=[8], depths=[1], layer_type="basic", **names
    )
    torch.manual_seed(0)
    model = hf.ResNetForImageClassification(config).eval()
    processor = hf.ViTImageProcessor(
        size={"height": 32, "width": 32}, image_mean=[0.5], image_std=[0.5], resample=2
    )
    model.save_pretrained(tmp_path / "grey")
    processor.save_pretrained(tmp_path / "grey")
    _, found = predictions(str(tmp_path / "grey"), info_of("classification"))
    grey = cv2.cvtColor(IMAGES[0], cv2.COLOR_RGB2GRAY)[..., None]
    with torch.no_grad():
        logits = model(
            **processor([grey], return_tensors="pt", input_data_format="channels_last")
        ).logits[:, [1, 0]]
    assert np.allclose(found[0].probabilities, logits.softmax(1)[0].numpy(), atol=1e-6)


def one_former_folder(folder):
    """A small OneFormer with its processor, whose tokenizer knows bytes."""
    import transformers as hf
    from tokenizers.pre_tokenizers import ByteLevel

    names = ("tall", "wide", "other")
    swin = hf.SwinConfig(
        image_size=64,
        embed_dim=8,
        depths=[1] * 4,
        num_heads=[1] * 4,
        window_size=2,
        out_features=["stage1", "stage2", "stage3", "stage4"],
    )
    config = hf.OneFormerConfig(
        backbone_config=swin,
        **dict.fromkeys(("hidden_dim", "conv_dim", "mask_dim", "text_encoder_width"), 32),
        num_queries=6,
        encoder_layers=1,
        decoder_layers=2,
        query_dec_layers=1,
        num_attention_heads=2,
        dim_feedforward=16,
        encoder_feedforward_dim=32,
        text_encoder_num_layers=1,
        text_encoder_vocab_size=600,
        id2label=dict(enumerate(names)),
        label2id={name: number for number, name in enumerate(names)},
    )
    torch.manual_seed(0)
    model = hf.OneFormerForUniversalSegmentation(config)
    folder.mkdir()
    info = {str(number): {"isthing": 1, "name": name} for number, name in enumerate(names)}
    (folder / "info.json").write_text(json.dumps(info))
    images = hf.OneFormerImageProcessor(
        size={"height": 64, "width": 64},
        repo_path=str(folder),
        class_info_file="info.json",
        num_labels=3,
    )
    letters = sorted(ByteLevel.alphabet())
    tokens = [*letters, *(f"{one}</w>" for one in letters), "<|startoftext|>", "<|endoftext|>"]
    vocabulary = {token: number for number, token in enumerate(tokens)}
    processor = hf.OneFormerProcessor(images, hf.CLIPTokenizer(vocab=vocabulary, merges=[]))
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return model.eval(), processor


def test_one_former_on_semantic_maps(tmp_path):
    """It receives its task as text. It has no overlapping instances: they are refused."""
    model, processor = one_former_folder(tmp_path / "one")
    _, found = predictions(
        str(tmp_path / "one"), info_of("segmentation", ("other", "tall", "wide"))
    )
    inputs = processor(IMAGES[:1], ["semantic"], return_tensors="pt")
    with torch.no_grad():
        answer = model(**inputs)
    expected = processor.post_process_semantic_segmentation(answer, [IMAGES[0].shape[:2]])[0]
    assert (found[0].label_map == np.array([1, 2, 0])[expected.numpy()]).mean() > 0.95
    with pytest.raises(UserError, match="no overlapping instances"):
        predictions(str(tmp_path / "one"), info_of("detection"))


@pytest.mark.parametrize(
    "config",
    [
        "[" * 100_000,
        "[]",
        '{"id2label": 5}',
        '{"model_type": "vit", "hidden_size": "a"}',
        '{"model_type": "vit", "id2label": 5}',
        '{"model_type": "timm_wrapper"}',
    ],
)
def test_a_damaged_folder_is_one_sentence(tmp_path, config):
    (tmp_path / "config.json").write_text(config)
    with pytest.raises(UserError) as caught:
        open_predictor(f"transformers:{tmp_path}", info_of("classification"))
    assert "\n" not in str(caught.value)


def test_damaged_weights_are_one_sentence(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "vit", "hidden_size": 8}')
    (tmp_path / "model.safetensors").write_bytes(b"\xff" * 100)
    with pytest.raises(UserError, match="SafetensorError"):
        open_predictor(f"transformers:{tmp_path}", info_of("classification"))

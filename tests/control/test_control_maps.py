"""Control maps: each detector's own code on tiny random weights in their real format, and what must hold for any."""

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from text2video_zero.control.control_maps import (
    OPENPOSE_LICENCE_NOTE,
    CannyMapper,
    DepthMapper,
    MidasMapper,
    OpenPoseMapper,
    PoseMapper,
    missing_weights,
)
from text2video_zero.control.depth import drawn_depths, network_depths
from text2video_zero.control.pose import JOINT_COLOURS, draw_skeletons
from text2video_zero.errors import UserError
from text2video_zero.models.catalogue import ANNOTATORS
from text2video_zero.models.checkpoints import DetectorCheckpoint
from text2video_zero.models.pipeline import Detector, Network
from toyland.world.scene import Scene, random_scene, render

CPU = torch.device("cpu")
SCENES = [random_scene(np.random.default_rng(seed), subject="person") for seed in range(11)]


@pytest.fixture(scope="module")
def frames() -> np.ndarray:
    """(11, 96, 128, 3): more than one batch, and not square."""
    return np.stack([cv2.resize(render(scene, 128).image, (128, 96)) for scene in SCENES])


class TestCanny:
    @pytest.mark.parametrize("thresholds", [(100, 200), (20, 60)])
    def test_it_is_opencvs(self, thresholds, frames):
        maps = CannyMapper(*thresholds).maps(frames)
        assert maps.shape == frames.shape
        assert maps.dtype == np.uint8
        for frame, edges in zip(frames, maps, strict=True):
            assert np.array_equal(edges, cv2.Canny(frame, *thresholds)[..., None].repeat(3, -1))
        assert maps.any()


@pytest.mark.parametrize("fits", [1, 3, 5])
def test_a_batch_that_the_memory_does_not_hold_is_halved(frames, monkeypatch, fits):
    whole = CannyMapper().maps(frames)
    seen, batches = CannyMapper.seen, []

    def short(self, batch):
        batches.append(len(batch))
        if len(batch) > fits:
            raise torch.OutOfMemoryError("injected")
        return seen(self, batch)

    monkeypatch.setattr(CannyMapper, "seen", short)
    assert np.array_equal(CannyMapper().maps(frames), whole)
    assert max(batches) > fits
    assert sum(batch for batch in batches if batch <= fits) == len(frames)


def test_progress_is_told_batch_by_batch_and_stopping_leaves_at_once(frames):
    steps = CannyMapper().steps(frames)
    assert list(steps) == [8, 11] + 11 * [11]  # then it draws
    for pauses in (1, 2, 5):
        begun = CannyMapper().steps(frames)
        assert [next(begun) for _ in range(pauses)] == [8, 11, 11, 11, 11][:pauses]
        begun.close()


@pytest.fixture(scope="module")
def passing_by() -> list[np.ndarray]:
    """Depths of a meadow, 1 = near; in the later frames somebody stands in front of it."""
    scene = Scene("panda", "red", "meadow", height=0.8, y=0.6)
    with_subject = render(scene, 128)
    far_only = np.where(with_subject.mask > 0.01, 0.2, with_subject.depth).astype(np.float32)
    return [far_only, far_only, with_subject.depth, with_subject.depth]


class TestDepthDrawing:
    def test_near_is_bright(self, passing_by):
        maps = np.stack(list(drawn_depths(passing_by)))
        assert maps.shape == (4, 128, 128, 3)
        assert maps.dtype == np.uint8
        order = np.argsort(passing_by[3].ravel(), kind="stable")
        assert (np.diff(maps[3, ..., 0].ravel()[order].astype(int)) >= 0).all()
        assert maps.min() == 0
        assert maps.max() == 255

    def test_what_stands_still_keeps_its_brightness_when_something_nearer_comes_in(self, passing_by):
        maps = np.stack(list(drawn_depths(passing_by)))
        still = passing_by[0] == passing_by[2]
        assert 0.2 < still.mean() < 0.95
        assert np.array_equal(maps[0][still], maps[2][still])
        assert not np.array_equal(maps[0], maps[2])

    def test_a_few_wild_values_do_not_dim_the_rest(self, passing_by):
        wild = [depth.copy() for depth in passing_by]
        wild[0][0, :8] = 1000
        drawn, tame = (np.stack(list(drawn_depths(clip))) for clip in (wild, passing_by))
        assert np.abs(drawn.astype(int) - tame)[1:].max() <= 3

    def test_one_depth_everywhere_is_black_and_no_error(self):
        assert not np.any(list(drawn_depths([np.full((8, 8), 3.0, np.float32)] * 2)))

    def test_half_precision_and_long_clips(self):
        ramp = np.linspace(0, 1, 64 * 64, dtype=np.float16).reshape(64, 64)
        maps = np.stack(list(drawn_depths([ramp] * 600)))
        assert maps[599, -1, -1, 0] == 255


def depth_anything(folder: Path) -> Path:
    from transformers import DepthAnythingConfig, DepthAnythingForDepthEstimation, Dinov2Config, DPTImageProcessor

    torch.manual_seed(0)
    backbone = Dinov2Config(
        image_size=28,
        patch_size=14,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        out_features=["stage1", "stage2"],
        apply_layernorm=True,
        reshape_hidden_states=False,
    )
    config = DepthAnythingConfig(
        backbone_config=backbone,
        reassemble_hidden_size=16,
        patch_size=14,
        neck_hidden_sizes=[8, 8],
        reassemble_factors=[2, 1],
        fusion_hidden_size=8,
        head_hidden_size=8,
    )
    DepthAnythingForDepthEstimation(config).save_pretrained(folder)
    DPTImageProcessor(
        size={"height": 42, "width": 42}, keep_aspect_ratio=True, ensure_multiple_of=14, do_pad=False
    ).save_pretrained(folder)
    return folder


def dpt_hybrid(folder: Path) -> Path:
    from transformers import DPTConfig, DPTForDepthEstimation, DPTImageProcessor

    torch.manual_seed(1)
    backbone = {
        "model_type": "bit",
        "global_padding": "same",
        "layer_type": "bottleneck",
        "depths": [1, 1, 1],
        "out_features": ["stage1", "stage2", "stage3"],
        "embedding_dynamic_padding": True,
        "hidden_sizes": [16, 16, 32],
        "embedding_size": 16,
        "num_groups": 2,
    }
    config = DPTConfig(
        image_size=64,
        patch_size=16,
        hidden_size=32,
        num_hidden_layers=4,
        num_attention_heads=2,
        intermediate_size=32,
        backbone_out_indices=[0, 1, 2, 3],
        neck_hidden_sizes=[16, 16, 16, 16],
        fusion_hidden_size=16,
        is_hybrid=True,
        backbone_config=backbone,
        backbone_featmap_shape=[1, 32, 4, 4],
        readout_type="project",
        reassemble_factors=[1, 1, 1, 0.5],
        neck_ignore_stages=[0, 1],
    )
    DPTForDepthEstimation(config).save_pretrained(folder)
    DPTImageProcessor(size={"height": 64, "width": 64}, do_pad=False).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module", params=[depth_anything, dpt_hybrid])
def depth_detector(request, tmp_path_factory) -> Detector:
    from transformers import AutoImageProcessor, AutoModelForDepthEstimation

    folder = request.param(tmp_path_factory.mktemp("depth"))
    network = Network(
        AutoModelForDepthEstimation.from_pretrained(folder).eval(), AutoImageProcessor.from_pretrained(folder)
    )
    return Detector(DetectorCheckpoint(str(folder), "depth"), CPU, network)


class TestDepthNetworks:
    def test_frames_become_maps_of_their_size(self, depth_detector, frames):
        maps = DepthMapper(depth_detector).maps(frames)
        assert maps.shape == frames.shape
        assert maps.dtype == np.uint8
        assert np.array_equal(maps[..., 0], maps[..., 2])
        assert maps.std() > 0

    def test_what_the_network_says_is_larger_is_brighter(self, depth_detector, frames):
        mapper = DepthMapper(depth_detector)
        inputs = depth_detector.network.processor(images=[frames[0]], return_tensors="pt")
        with torch.no_grad():
            said = depth_detector.network.model(**inputs).predicted_depth
        said = torch.nn.functional.interpolate(said[:, None], frames.shape[1:3], mode="bicubic")[0, 0].numpy()
        drawn = mapper.maps(frames[:1])[0, ..., 0].astype(float)
        assert np.corrcoef(said.ravel(), drawn.ravel())[0, 1] > 0.95

    def test_batches_do_not_matter(self, depth_detector, frames):
        together = DepthMapper(depth_detector).maps(frames)
        one_by_one = DepthMapper(depth_detector)
        one_by_one.batch = 1
        assert np.abs(one_by_one.maps(frames).astype(int) - together).max() <= 1


def vitpose(folder: Path, experts: int = 1) -> Path:
    from transformers import VitPoseBackboneConfig, VitPoseConfig, VitPoseForPoseEstimation, VitPoseImageProcessor

    torch.manual_seed(2)
    backbone = VitPoseBackboneConfig(
        image_size=[64, 48],
        patch_size=[16, 16],
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        mlp_ratio=2,
        num_experts=experts,
        part_features=8 if experts > 1 else 0,
        out_features=["stage2"],
    )
    config = VitPoseConfig(backbone_config=backbone, num_labels=17, scale_factor=4, use_simple_decoder=True)
    VitPoseForPoseEstimation(config).save_pretrained(folder)
    VitPoseImageProcessor(size={"height": 64, "width": 48}).save_pretrained(folder)
    return folder


def rt_detr(folder: Path) -> Path:
    from transformers import RTDetrConfig, RTDetrForObjectDetection, RTDetrImageProcessor, RTDetrResNetConfig

    torch.manual_seed(3)
    backbone = RTDetrResNetConfig(
        embedding_size=8,
        hidden_sizes=[8, 16, 24, 32],
        depths=[1, 1, 1, 1],
        out_features=["stage2", "stage3", "stage4"],
        out_indices=[2, 3, 4],
        layer_type="basic",
    )
    config = RTDetrConfig(
        backbone_config=backbone,
        encoder_hidden_dim=16,
        encoder_in_channels=[16, 24, 32],
        encoder_ffn_dim=32,
        encoder_layers=1,
        encoder_attention_heads=2,
        d_model=16,
        num_queries=10,
        decoder_in_channels=[16, 16, 16],
        decoder_ffn_dim=32,
        decoder_layers=2,
        decoder_attention_heads=2,
        num_feature_levels=3,
        num_denoising=0,
        anchor_image_size=None,
        id2label={0: "bicycle", 1: "person"},
        label2id={"bicycle": 0, "person": 1},
    )
    RTDetrForObjectDetection(config).save_pretrained(folder)
    RTDetrImageProcessor(size={"height": 64, "width": 64}).save_pretrained(folder)
    return folder


def peaks(keypoints: int, height: int, width: int) -> tuple[torch.Tensor, np.ndarray]:
    """Heat (k, h, w) with one peak for each keypoint, and the cells x, y (k, 2) of the peaks."""
    places = np.random.default_rng(0).integers((2, 2), (width - 2, height - 2), (keypoints, 2))
    rows, columns = np.mgrid[:height, :width]
    heat = [np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / 4) for x, y in places]
    return torch.tensor(np.stack(heat), dtype=torch.float32), places


@pytest.fixture(scope="module")
def box_finder(tmp_path_factory) -> Network:
    from transformers import AutoImageProcessor, RTDetrForObjectDetection

    folder = rt_detr(tmp_path_factory.mktemp("boxes"))
    return Network(RTDetrForObjectDetection.from_pretrained(folder).eval(), AutoImageProcessor.from_pretrained(folder))


@pytest.fixture(scope="module", params=[1, 2], ids=["vitpose", "vitpose plus"])
def pose_detector(request, box_finder, tmp_path_factory) -> Detector:
    from transformers import AutoImageProcessor, VitPoseForPoseEstimation

    folder = vitpose(tmp_path_factory.mktemp("pose"), request.param)
    network = Network(
        VitPoseForPoseEstimation.from_pretrained(folder).eval(), AutoImageProcessor.from_pretrained(folder)
    )
    return Detector(DetectorCheckpoint(str(folder), "pose", box_source="tiny"), CPU, network, box_finder)


class TestPose:
    def test_people_become_skeletons(self, pose_detector, frames):
        maps = PoseMapper(pose_detector, person_score=0.0, keypoint_score=-1e9, most_people=3).maps(frames)
        assert maps.shape == frames.shape
        assert maps.dtype == np.uint8
        assert maps.any()
        assert maps[:, ::3, ::3].reshape(-1, 3).max(0).tolist() == [255, 255, 255]  # all hues of the wheel

    def test_a_peak_in_the_heat_becomes_a_joint_at_its_place(self, pose_detector, frames):
        heat, places = peaks(17, 16, 12)
        box = np.array([[32.0, 0.0, 72.0, 96.0]], np.float32)  # of ViTPose's own proportions, 3 to 4
        hook = pose_detector.network.model.head.register_forward_hook(lambda *_: heat[None])
        try:
            points = PoseMapper(pose_detector)._keypoints(frames[:1], [box])[0][0]
        finally:
            hook.remove()
        # The processor widens box_finder by a quarter around their middle.
        x = (32 + 36 + ((places[:, 0] + 0.5) / 12 - 0.5) * 72 * 1.25) / 128
        y = (48 + ((places[:, 1] + 0.5) / 16 - 0.5) * 96 * 1.25) / 96
        cell = 7.5 / 128, 7.5 / 96
        assert np.abs(points[:, 0] - x).max() < cell[0]
        assert np.abs(points[:, 1] - y).max() < cell[1]
        assert (points[:, 2] > 0.9).all()

    def test_only_people_count_and_the_surest_first(self, pose_detector, frames):
        everybody = PoseMapper(pose_detector, person_score=0.0, most_people=99)._people(frames)
        surest = PoseMapper(pose_detector, person_score=0.0, most_people=2)._people(frames)
        for all_boxes, two in zip(everybody, surest, strict=True):
            assert np.array_equal(all_boxes[:2], two)
            assert len(all_boxes) <= 20  # the ten queries may each be called a bicycle and a person

    def test_a_clip_of_nobody_is_told(self, pose_detector, frames):
        with pytest.raises(UserError, match=r"^No person was found in the clip: choose edge or depth"):
            PoseMapper(pose_detector, person_score=1.0).maps(frames)
        with pytest.raises(UserError, match="No person"):
            PoseMapper(pose_detector, person_score=0.0, keypoint_score=1e9).maps(frames)

    def test_frames_without_people_are_black_among_the_others(self, pose_detector, frames, monkeypatch):
        mapper = PoseMapper(pose_detector, person_score=0.0, keypoint_score=-1e9)
        box = np.array([[32.0, 0.0, 72.0, 96.0]], np.float32)
        monkeypatch.setattr(mapper, "_people", lambda batch: [box[: index % 2] for index in range(len(batch))])
        shown = mapper.maps(frames[:6]).any((1, 2, 3))
        assert shown.tolist() == [False, True] * 3


class TestAnnotators:
    """controlnet-aux's detectors, with random weights in the files that they ask for."""

    @pytest.mark.slow
    def test_openpose(self, manager, tmp_path, frames, monkeypatch):
        open_pose = pytest.importorskip("controlnet_aux.open_pose")
        from controlnet_aux.open_pose.body import bodypose_model
        from controlnet_aux.open_pose.face import FaceNet
        from controlnet_aux.open_pose.hand import handpose_model

        torch.manual_seed(4)
        for name, model in (("body", bodypose_model()), ("hand", handpose_model())):
            # The files carry the names of the layers without those of their blocks.
            state = {key.split(".", 1)[1]: value for key, value in model.state_dict().items()}
            if name == "hand":
                state["Mconv7_stage6.bias"] += 0.2  # warm enough for each keypoint to be found somewhere
            torch.save(state, tmp_path / f"{name}_pose_model.pth")
        torch.save(FaceNet().state_dict(), tmp_path / "facenet.pth")
        with manager.lend_detector(replace(ANNOTATORS["openpose"], source=str(tmp_path))) as detector:
            assert isinstance(detector, open_pose.OpenposeDetector)
            mapper = OpenPoseMapper(detector, hands_and_face=True)
            with pytest.raises(UserError, match="No person"):  # noise sees nobody
                mapper.maps(frames[:1])
            # So somebody is put in, at whose face and right hand the other networks look; the left one has no wrist.
            picture = render(SCENES[0], 256)
            joints = [open_pose.Keypoint(float(x) * 256, float(y) * 256) for x, y, _ in picture.skeleton]
            joints[7] = None
            person = open_pose.BodyResult(joints, 1.0, 17)
            monkeypatch.setattr(detector.body_estimation, "format_body_result", lambda *_: [person])
            (seen,) = mapper.seen(picture.image[None])
            assert seen.hands.shape == (1, 21, 3)
            assert seen.hands[..., 2].sum() > 10
        (drawn,) = mapper.drawn([seen], 256, 256)
        without_wrist = picture.skeleton * 1
        without_wrist[7, 2] = 0
        assert drawn[draw_skeletons(without_wrist[None], 256, 256).any(-1)].any(-1).all()

    def test_hands_are_found_where_they_are_warm(self):
        """controlnet-aux's own search for hands, over a network that sees each keypoint at a place of its own."""
        open_pose = pytest.importorskip("controlnet_aux.open_pose")
        from controlnet_aux.open_pose.hand import Hand
        from controlnet_aux.open_pose.util import handDetect

        places = 0.2 + 0.6 * torch.rand(21, 2, generator=torch.Generator().manual_seed(1))  # x, y of the box

        class Warmth(torch.nn.Conv2d):
            def forward(self, pictures):
                height, width = pictures.shape[2] // 8, pictures.shape[3] // 8
                rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
                away = [((columns / width - x) ** 2 + (rows / height - y) ** 2) for x, y in places]
                keypoints = torch.stack([torch.exp(-distance / 0.002) for distance in away])
                return torch.cat([keypoints, torch.zeros(1, height, width)])[None]

        class WarmHand(Hand):
            def __init__(self):
                self.model = Warmth(3, 1, 1)

        picture = render(SCENES[0], 480)  # boxes below 20 pixels are passed over
        joints = [open_pose.Keypoint(float(x) * 480, float(y) * 480) for x, y, _ in picture.skeleton]
        body = open_pose.BodyResult(joints, 1.0, 18)

        class Somebody:
            def __call__(self, picture):
                return picture, None

            def format_body_result(self, *_):
                return [body]

        detector = open_pose.OpenposeDetector(Somebody(), WarmHand())
        detector.detect_face = lambda *_: None
        mapper = OpenPoseMapper(detector, hands_and_face=True)
        frames = picture.image[None]
        (seen,) = mapper.seen(frames)
        boxes = handDetect(body, picture.image)
        assert len(boxes) == len(seen.hands) == 2
        for (left, top, side, _), hand in zip(boxes, seen.hands, strict=True):
            expected = (np.array([left, top]) + places.numpy() * side) / 480
            assert np.abs(hand[:, :2] - expected).max() < 0.1 * side / 480
            assert (hand[:, 2] == 1).all()
        fingers = (mapper.maps(frames) != OpenPoseMapper(detector).maps(frames)).any(-1)[0]
        rows, columns = np.nonzero(fingers)
        inside = [(columns >= x) & (columns <= x + side) & (rows >= y) & (rows <= y + side) for x, y, side, _ in boxes]
        assert all(box.any() for box in inside)
        assert np.any(inside, axis=0).all()

    def test_what_openpose_finds_is_drawn(self, frames):
        open_pose = pytest.importorskip("controlnet_aux.open_pose")
        keypoint, skeleton = open_pose.Keypoint, render(SCENES[0], 128).skeleton
        joints = [keypoint(float(x), float(y)) for x, y, _ in skeleton]
        joints[4] = None
        hand = [keypoint(0.1 + 0.01 * index, 0.2) for index in range(20)] + [keypoint(-0.01, -0.01)]
        person = open_pose.PoseResult(open_pose.BodyResult(joints, 1.0, 17), hand, None, [keypoint(0.9, 0.9)])

        class Found(open_pose.OpenposeDetector):
            def detect_poses(self, picture, **looked_for):
                assert looked_for == {"include_hand": True, "include_face": True}
                return [person] if (picture == frames[0]).all() else []

        maps = OpenPoseMapper(Found(None), hands_and_face=True).maps(frames[:2])
        hidden = skeleton.copy()
        hidden[4, 2] = 0
        body = draw_skeletons(hidden[None], 96, 128)
        assert (maps[0][body.any(-1)] == body[body.any(-1)]).all(-1).mean() > 0.9
        assert JOINT_COLOURS[4] not in {tuple(colour) for colour in maps[0].reshape(-1, 3).tolist()}
        assert maps[0, 86, 115].tolist() == [255, 255, 255]
        assert not maps[1].any()

    @pytest.mark.slow
    def test_midas(self, manager, tmp_path, frames):
        midas = pytest.importorskip("controlnet_aux.midas")
        from controlnet_aux.midas.midas.dpt_depth import DPTDepthModel

        torch.manual_seed(5)
        network = DPTDepthModel(path=None, backbone="vitb_rn50_384", non_negative=True)
        torch.save(network.state_dict(), tmp_path / "dpt_hybrid-midas-501f0c75.pt")
        with manager.lend_detector(replace(ANNOTATORS["midas"], source=str(tmp_path))) as detector:
            maps = MidasMapper(detector).maps(frames[:2])
        assert isinstance(detector, midas.MidasDetector)
        assert maps.shape == frames[:2].shape
        assert maps.std() > 0

    def test_midas_is_asked_at_its_own_size_and_scale(self, frames):
        """A network that says how bright a pixel is, in MiDaS's place: shapes, order and orientation hold."""
        midas = pytest.importorskip("controlnet_aux.midas")

        class Brightness(torch.nn.Conv2d):
            def forward(self, pictures):
                assert pictures.shape[2:] == (384, 512)
                assert pictures.abs().max() <= 1
                return pictures.mean(1)

        maps = MidasMapper(midas.MidasDetector(Brightness(3, 1, 1))).maps(frames[:3])
        bright = frames[:3].mean(-1)
        assert np.corrcoef(maps[..., 0].ravel(), bright.ravel())[0, 1] > 0.97


@pytest.mark.parametrize("name", ["openpose", "midas"])
def test_an_annotators_missing_files_are_told(manager, tmp_path, name):
    with (
        pytest.raises(UserError, match=ANNOTATORS[name].files[0]),
        manager.lend_detector(replace(ANNOTATORS[name], source=str(tmp_path))),
    ):
        pass


def test_toylands_own_reader_sees_depth_as_networks_of_transformers_do(manager):
    renderings = [render(random_scene(np.random.default_rng(seed)), 128) for seed in (1, 2)]
    with manager.lend_detector("depth-toyland") as detector:
        depths = network_depths(detector, np.stack([rendering.image for rendering in renderings]))
    assert depths.shape == (2, 128, 128)
    for depth, rendering in zip(depths, renderings, strict=True):
        assert np.corrcoef(depth.ravel(), rendering.depth.ravel())[0, 1] > 0.9


@pytest.mark.parametrize("kind", ["pose", "depth"])
def test_missing_weights_are_told_with_the_reason_and_two_ways_out(kind):
    error = missing_weights(kind, "ViTPose", UserError("The Hub cannot be reached."))
    assert isinstance(error, UserError)
    assert "ViTPose cannot be had. The Hub cannot be reached. Or" in str(error)
    assert "edge control" in str(error)
    assert "ready-made" in str(error)


def test_the_licence_of_openpose_can_be_shown():
    assert "non-commercial" in OPENPOSE_LICENCE_NOTE

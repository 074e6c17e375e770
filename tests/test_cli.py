"""The command line: each field has its option, mistakes are one line, and the result is where it is said to be."""

import io
import json
import os
import re
import signal
import subprocess
import sys
import zipfile
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pytest

from tests.fake_hub import FakeHub
from tests.tiny_models import write_lora
from text2video_zero import __main__ as cli
from text2video_zero import __version__, job
from text2video_zero.events import Finished, Notice, Progress
from text2video_zero.media.settings import read_settings
from text2video_zero.media.video import Video
from text2video_zero.models import catalogue
from text2video_zero.models.catalogue import DREAMBOOTH_STYLES, KNOWN_MODELS, TOYLAND, TOYLAND_FOLDER, KnownModel
from text2video_zero.models.checkpoints import Checkpoint
from text2video_zero.models.hub import Hub
from text2video_zero.requests import REQUESTS, Kind

ROOT = Path(__file__).resolve().parent.parent
TASK = "text-to-video"
SHORT = ("--steps", "4", "--frames", "2", "--motion-from", "300", "--motion-to", "600", "--device", "cpu")
EVERY_FIELD = [
    pytest.param(task, name, spec, id=f"{task} {name}")
    for task, request in REQUESTS.items()
    for name, _, spec in request.declarations()
]


@pytest.fixture
def short_run(tiny_checkpoint: Path) -> list[str]:
    """Arguments of a run of about a second."""
    return [TASK, "--prompt", "a red panda", "--model", str(tiny_checkpoint), *SHORT]


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def parsed(*argv: str) -> dict:
    """The field values that a command line gives."""
    values = vars(cli.build_parser().parse_args([TASK, *argv]))
    return {name.removeprefix(cli.FIELD): value for name, value in values.items() if name.startswith(cli.FIELD)}


def refused(capsys, *argv: str) -> str:
    """The one line that a mistake is told in; nothing else may be printed and no run may start."""
    assert cli.main(list(argv)) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert re.fullmatch(r"[^\n]+\n", printed.err)
    return printed.err.rstrip()


class TestOptions:
    @pytest.mark.parametrize(("task", "name", "spec"), EVERY_FIELD)
    def test_every_field_has_one_and_its_help(self, task, name, spec, capsys):
        with pytest.raises(SystemExit) as stopped:
            cli.main([task, "--help"])
        assert stopped.value.code == 0
        shown = " ".join(capsys.readouterr().out.split())
        option = f"--{name.replace('_', '-')}"
        assert re.search(rf"{option}(, | (N|X|WxH|CHOICE|TEXT|FILE) )", shown)
        assert " ".join(spec.help.split()) in shown
        if spec.kind is Kind.FLAG:
            assert f"--no-{option[2:]}" in shown

    def test_help_tells_what_the_default_model_does_where_it_has_its_own_way(self, capsys):
        with pytest.raises(SystemExit):
            cli.main(["pose", "--help"])
        shown = " ".join(capsys.readouterr().out.split())
        for told in (
            "(4 to 999; default 20; toyland: 25)",
            "(1 to 8; default 1; toyland: 3)",
            "(1 to 512; default 8)",
            "Added to the prompt. (default 'best quality, extremely detailed')",
        ):
            assert told in shown

    def test_only_given_fields_are_taken(self):
        assert parsed() == {}
        assert parsed("--no-motion", "--seed", "3") == {"motion": False, "seed": 3}
        assert parsed("--motion", "--size", "768x512", "--pan-x", "-0.1", "--guidance-scale", "7") == {
            "motion": True,
            "size": "768x512",
            "pan_x": -0.1,
            "guidance_scale": 7,
        }

    def test_a_path_may_begin_at_home(self, tmp_path, monkeypatch):
        monkeypatch.setenv("HOME", str(tmp_path))
        assert parsed("--start-picture=~/fox.png") == {"start_picture": str(tmp_path / "fox.png")}
        assert parsed("--start-picture", "") == {"start_picture": ""}
        arguments = cli.build_parser().parse_args([TASK, "--output=~/fox.mp4", "--settings=~/old.mp4"])
        assert (arguments.output, arguments.settings) == (tmp_path / "fox.mp4", tmp_path / "old.mp4")
        arguments = cli.build_parser().parse_args(["verify", "~/fox.mp4", "--clip=~nobody-of-that-name/fox.mp4"])
        assert arguments.file == tmp_path / "fox.mp4"
        assert arguments.clip == Path("~nobody-of-that-name/fox.mp4")

    def test_known_models_are_listed_without_a_task(self, capsys):
        for argv in (["--list-models"], [TASK, "--list-models"]):
            with pytest.raises(SystemExit) as stopped:
                cli.main(argv)
            assert stopped.value.code == 0
            names = [line.split()[0] for line in capsys.readouterr().out.splitlines()]
            assert names == [*KNOWN_MODELS, *DREAMBOOTH_STYLES]

    def test_version(self, capsys):
        with pytest.raises(SystemExit):
            cli.main(["--version"])
        assert __version__ in capsys.readouterr().out

    @pytest.mark.parametrize(
        "argv",
        [
            ["--help"],
            [TASK, "--help"],
            [TASK, "--frames", "0"],
            [TASK, "--prompt", "x", "--size", "100x100"],
            [TASK, "--prompt", "x", "--model", "./absent.safetensors"],
            [TASK, "--prompt", "x", "--model", "tests"],
            [TASK, "--prompt", "x", "--lora", "absent.safetensors"],
            [TASK, "--prompt", "x", "--device", "abacus"],
            [TASK, "--prompt", "x", "--dtype", "half"],
            ["pose", "--prompt", "x", "--clip", "absent.mp4"],
        ],
    )
    def test_help_and_mistakes_do_not_wait_for_what_draws(self, argv):
        slow = {"numpy", "PIL", "imageio_ffmpeg", "cv2", "torch", "torchvision", "diffusers", "transformers", "gradio"}
        program = (
            "import sys; from text2video_zero.__main__ import main\n"
            f"try: main({argv})\nexcept SystemExit: pass\n"
            f"print('loaded', {slow} & sys.modules.keys())"
        )
        finished = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, check=True)
        assert finished.stdout.splitlines()[-1] == "loaded set()"

    @pytest.mark.parametrize(
        "argv",
        [
            ["evaluate", "--prompt", "x", "--seeds", "0"],
            ["evaluate", "--prompt", "x", "--against", "theirs"],
            ["evaluate", "--prompt", "x", "--set", "steps=1"],
            ["verify", "x.mp4", "--within", "300"],
        ],
    )
    def test_mistakes_in_what_is_measured_do_not_wait_for_torch(self, argv):
        program = (
            "import sys; from text2video_zero.__main__ import main\n"
            f"print(main({argv}), {{'torch', 'diffusers', 'transformers'}} & sys.modules.keys())"
        )
        finished = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, check=True)
        assert finished.stdout.splitlines()[-1] == "2 set()"


class TestMistakes:
    @pytest.mark.parametrize(
        ("argv", "message"),
        [
            ([], "The following arguments are required: TASK"),
            (["text-to-viedo"], "Argument TASK: invalid choice: 'text-to-viedo'"),
            ([TASK], "--prompt is empty: write what you want to see."),
            ([TASK, "--prompt"], "Argument --prompt: expected one argument"),
            ([TASK, "--frmes", "8"], "Unrecognized arguments: --frmes 8"),
            ([TASK, "--guidance", "8"], "Unrecognized arguments: --guidance 8"),
            (
                [TASK, "--prompt", "x", "--frames", "0"],
                "--frames is 0, out of range: give a whole number from 1 to 512.",
            ),
            ([TASK, "--prompt", "x", "--frames", "two"], "--frames is 'two': give a whole number from 1 to 512."),
            ([TASK, "--prompt", "x", "--frames", "7.5"], "--frames is 7.5: give a whole number from 1 to 512."),
            ([TASK, "--prompt", "x", "--sampler", "magic"], "--sampler is 'magic': choose one of DDIM"),
            ([TASK, "--prompt", "x", "--size", "100x100"], "--size is 100x100, but sides must be multiples of 8"),
            ([TASK, "--prompt", "x", "--start-strength", "3"], "--start-strength is 3, out of range"),
            ([TASK, "--prompt", "x", "--chunk-size", "0"], "--chunk-size is 0, out of range"),
            ([TASK, "--prompt", "x", "--play-fps", "4"], "--play-fps is 4, below the 8 frames per second that are"),
            (
                [TASK, "--prompt", "x", "--motion-from", "600", "--motion-to", "300"],
                "--motion-from is 600 and --motion-to is 300: the first must be below the second",
            ),
            ([TASK, "--prompt", "x", "--camera-keys", "8: Reach 1"], "--camera-keys has 'reach': choose from right"),
            ([TASK, "--prompt", "x", "--sampler", "Seed"], "--sampler is 'Seed': choose one of DDIM"),
            (["instruct-pix2pix", "--clip", "x.mp4"], "--prompt is empty"),
            ([TASK, "--prompt", "x", "--output", "clip.avi"], "clip.avi does not say which kind of video it is"),
            ([TASK, "--prompt", "x", "--settings", "absent.mp4"], "There is no file absent.mp4: check the name."),
        ],
    )
    def test_one_line_with_the_remedy(self, argv, message, capsys):
        assert refused(capsys, *argv).startswith(message)

    def test_files_that_cannot_be_written_are_known_before_the_run(self, capsys, tmp_path):
        (tmp_path / "file").write_text("")
        (tmp_path / "frame_0000.png").write_text("")
        message = refused(capsys, TASK, "--prompt", "x", "--output", "file/clip.mp4")
        assert message.startswith("file/clip.mp4 cannot be written, a part of its path is a file")
        message = refused(capsys, TASK, "--prompt", "x", "--output", "clip.mp4", "--frames-dir", ".")
        assert message.startswith("The folder . already holds frames")

    def test_models_and_devices_that_are_not_there(self, short_run, capsys, tmp_path):
        for extra, message in (
            (["--model", str(tmp_path / "absent.safetensors")], "absent.safetensors' does not exist: check the path."),
            (["--model", str(tmp_path)], "holds no model_index.json: give a folder in diffusers layout."),
            (["--device", "abacus"], "The device 'abacus' cannot be used here"),
        ):
            assert message in refused(capsys, *short_run, "--quiet", *extra)


class TestRuns:
    def test_a_real_process(self, short_run, tmp_path):
        finished = subprocess.run(
            [
                sys.executable,
                "-m",
                "text2video_zero",
                *short_run,
                "--seed",
                "5",
                "--frames-dir",
                "frames",
                "--fps",
                "3",
            ],
            capture_output=True,
            text=True,
            check=False,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
        )
        assert finished.returncode == 0, finished.stderr
        path = tmp_path / finished.stdout.strip()
        assert path.parent == tmp_path / "outputs"
        assert path.name.startswith("a-red-panda-")
        settings = read_settings(path)
        assert (settings["task"], settings["request"]["seed"], settings["request"]["fps"]) == (TASK, 5, 3)
        assert sorted(file.name for file in (tmp_path / "frames").iterdir()) == ["frame_0000.png", "frame_0001.png"]
        told = finished.stderr.splitlines()
        assert told[0] == "Seed 5"
        assert told[1] == "Starting"
        assert told[2].startswith("Loading")
        assert re.fullmatch(r".+ fp32 on CPU, [\d.]+ of [\d.]+ GB free: 2 frames at a time", told[3])
        # Plain lines, since no terminal reads them, and nothing else: no warnings, no bars of other libraries.
        assert all(re.fullmatch(r"[A-Z][a-z ]+, step \d+ of \d+(, about \d+ s left)?", line) for line in told[4:])

    def test_a_drawn_seed_is_told_and_makes_the_video_again(self, short_run, capsys):
        assert cli.main([*short_run, "--output", "first.zip"]) == 0
        seed = re.search(r"^Seed (\d+)$", capsys.readouterr().err, re.MULTILINE)[1]
        assert read_settings(Path("first.zip"))["request"]["seed"] == int(seed)
        assert cli.main([*short_run, "--seed", seed, "--output", "second.zip"]) == 0
        assert Path("second.zip").read_bytes() == Path("first.zip").read_bytes()

    def test_quiet_tells_the_path_alone(self, short_run, capfd):
        assert cli.main([*short_run, "--quiet", "--output", "clip.gif"]) == 0
        printed = capfd.readouterr()
        assert (printed.out, printed.err) == ("clip.gif\n", "")

    def test_notices_stay_to_be_read(self, short_run, capsys, monkeypatch):
        def noticing(*_):
            yield Notice("The clip ends after 3 of 8 frames.")
            yield Finished(Video(np.zeros((1, 8, 8, 3), np.uint8), 8, {"request": {}}))

        monkeypatch.setattr("text2video_zero.generate.generate", noticing)
        assert cli.main([*short_run, "--output", "clip.gif"]) == 0
        assert "The clip ends after 3 of 8 frames." in capsys.readouterr().err.splitlines()

    def test_a_download_is_told_in_bytes(self, tiny_checkpoint, short_run, capsys, monkeypatch, tmp_path):
        with FakeHub({"owner/tiny": tiny_checkpoint}).running() as hub:
            monkeypatch.setattr("model_manager.Hub", lambda: Hub(hub.endpoint, tmp_path / "cache"))
            assert cli.main([*short_run, "--model", "owner/tiny", "--output", "clip.gif"]) == 0
        told = capsys.readouterr().err.splitlines()
        assert any(
            re.fullmatch(r"Downloading owner/tiny, [\d.]+ of [\d.]+ MB(, about .* left)?", line) for line in told
        )

    def test_loras_are_added_recorded_and_taken_from_an_earlier_video(
        self, tiny_checkpoint, short_run, monkeypatch, tmp_path
    ):
        monkeypatch.setattr("text2video_zero.models.adapters.read_adapters.__defaults__", (tmp_path / "models",))
        for number, name in enumerate(("ink", "wool")):
            write_lora(tmp_path / "models" / f"{name}.safetensors", tiny_checkpoint, seed=number)
        frames = {}
        for output, options in {
            "plain.zip": [],
            "tuned.zip": ["--lora", "ink:0.5", "--lora", str(tmp_path / "models" / "wool.safetensors")],
            "again.zip": ["--settings", "tuned.zip"],
            "other.zip": ["--settings", "tuned.zip", "--lora", "ink:-2"],
        }.items():
            assert cli.main([*short_run, "--seed", "3", *options, "--output", output]) == 0
            with zipfile.ZipFile(output) as archive:
                frames[output] = archive.read("frame_0001.png")
        assert read_settings(Path("tuned.zip"))["loras"] == ["ink:0.5", "wool:1"]
        assert "loras" not in read_settings(Path("plain.zip"))
        assert frames["again.zip"] == frames["tuned.zip"]
        assert len(set(frames.values())) == 3

    def test_ctrl_c_closes_the_run(self, short_run, capsys, monkeypatch):
        closed = []

        def endless(*_):
            try:
                while True:
                    yield Progress("Denoising", 1, 2)
            finally:
                closed.append(True)

        def interrupt(_, progress):
            if progress.stage == "Denoising":
                raise KeyboardInterrupt

        monkeypatch.setattr("text2video_zero.generate.generate", endless)
        monkeypatch.setattr(cli.ProgressLine, "show", interrupt)
        assert cli.main([*short_run, "--output", "clip.mp4"]) == 130
        assert closed == [True]
        assert capsys.readouterr().err.splitlines()[-1] == "Stopped; nothing was saved."
        assert not Path("clip.mp4").exists()

    def test_an_evaluation_that_is_stopped_says_that_it_goes_on(self, capsys, monkeypatch):
        def interrupted(*_):
            yield Notice("drawn")
            raise KeyboardInterrupt

        monkeypatch.setattr(cli.command, "evaluate", interrupted)
        assert cli.main(["evaluate", "--prompt", "a fox", "--device", "cpu"]) == 130
        assert capsys.readouterr().err.splitlines()[-2:] == ["drawn", "Stopped; the same command goes on where it was."]

    @pytest.mark.slow
    @pytest.mark.skipif(sys.platform == "win32", reason="Windows sends no SIGINT to a single process")
    def test_ctrl_c_in_a_real_process(self, short_run):
        endless = [*short_run, "--steps", "900", "--frames", "64", "--output", "clip.mp4"]
        running = subprocess.Popen(
            [sys.executable, "-m", "text2video_zero", *endless],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            # Whoever runs the tests in the background has made them deaf to it, and their children too.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509 - no threads here
        )
        try:
            while not running.stderr.readline().startswith("First frame"):
                assert running.poll() is None
            running.send_signal(signal.SIGINT)
            out, err = running.communicate(timeout=60)
        finally:
            running.kill()
        assert running.returncode == 130
        assert out == ""
        assert err.splitlines()[-1] == "Stopped; nothing was saved."
        assert "Traceback" not in err
        assert not list(Path().iterdir())

    def test_a_video_that_cannot_be_encoded_keeps_its_frames(self, short_run, capsys, monkeypatch):
        from text2video_zero.media import video

        video.probe_encoder()  # succeeds and is remembered: the encoder breaks only after sampling
        monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", "/nonexistent/ffmpeg")
        assert cli.main([*short_run, "--quiet", "--output", "clip.mp4"]) == 2
        told = capsys.readouterr().err
        kept = re.search(r"The frames are kept in (\S+\.zip)\.\n", told)[1]
        assert read_settings(Path(kept))["request"]["prompt"] == "a red panda"
        assert told.count("\n") == 1

    @pytest.mark.slow
    @pytest.mark.skipif(not TOYLAND_FOLDER.exists(), reason="the embedded model is not in this checkout")
    def test_the_embedded_model_by_default(self, capsys):
        assert cli.main([TASK, "--prompt", "a red panda dancing in the snow", "--output", "panda.mp4"]) == 0
        assert read_settings(Path("panda.mp4"))["model"] == "toyland"
        assert capsys.readouterr().out == "panda.mp4\n"


class TestOrders:
    def order(self, *argv: str):
        return cli.job_of(cli.build_parser().parse_args([TASK, *argv]))

    @pytest.fixture
    def known(self, monkeypatch):
        model = KnownModel(
            "brisk", Checkpoint("nobody/brisk"), "", defaults=MappingProxyType({"steps": 20, "depth": 1})
        )
        for module in (job, catalogue):
            monkeypatch.setattr(module, "KNOWN_MODELS", {"brisk": model})

    @pytest.mark.usefixtures("known")
    def test_a_known_models_defaults_give_way_to_what_is_given(self):
        ordered = self.order("--prompt", "x", "--model", "brisk")
        assert (ordered.request.steps, ordered.checkpoint) == (20, Checkpoint("nobody/brisk"))
        assert self.order("--prompt", "x", "--model", "brisk", "--steps", "30").request.steps == 30
        assert self.order("--prompt", "x", "--model", "nobody/else").request.steps == 50

    @pytest.mark.usefixtures("known")
    def test_settings_of_a_video_are_the_base(self):
        stored = {"prompt": "a fox", "steps": 12, "seed": 4, "size": "64x96", "motion": False}
        settings = {"task": TASK, "model": "nobody/brisk", "request": stored}
        Video(np.zeros((1, 8, 8, 3), np.uint8), 8, settings).save(Path("earlier.mp4"))
        ordered = self.order("--settings", "earlier.mp4", "--seed", "5", "--motion")
        request = ordered.request
        assert ordered.checkpoint == Checkpoint("nobody/brisk")
        assert request.to_dict() == request.to_dict() | stored | {"seed": 5, "motion": True}

    def test_what_does_nothing_is_told_by_its_option(self):
        ordered = self.order("--prompt", "x", "--no-motion", "--reach", "0.5")
        assert ordered.remarks == "--reach does nothing while --motion is off."

    def test_a_json_file_of_fields_may_leave_out_what_is_given(self):
        Path("fields.json").write_text(json.dumps({"seed": 4, "fps": 12}))
        ordered = self.order("--settings", "fields.json", "--prompt", "a tree")
        request = ordered.request
        assert (request.prompt, request.seed, request.fps) == ("a tree", 4, 12)
        assert ordered.checkpoint == TOYLAND.checkpoint

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            ({"task": "instruct"}, "settings.json was made by instruct: run that task with it."),
            ({"request": [1]}, "settings.json holds no request: choose a video"),
            ({"sed": 3}, "text-to-video has no setting sed"),
            ({"request": {"prompt": "x", "frames": 0}}, "--frames is 0, out of range"),
            ([1], "settings.json carries no settings"),
        ],
    )
    def test_settings_that_do_not_fit(self, content, message, capsys):
        Path("settings.json").write_text(json.dumps(content))
        assert refused(capsys, TASK, "--settings", "settings.json").startswith(message)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class TestProgressLine:
    def test_a_terminal_has_one_line_that_is_written_over(self):
        stream = Terminal()
        with cli.ProgressLine(stream, quiet=False) as line:
            line.show(Progress("Denoising", 1, 50, 70.4))
            line.show(Progress("Denoising", 2, 50))
        assert stream.getvalue() == (
            "\r\x1b[KDenoising, step 1 of 50, about 70 s left\r\x1b[KDenoising, step 2 of 50\n"
        )

    def test_a_file_has_a_line_for_each_stage_and_tenth(self):
        stream = io.StringIO()
        with cli.ProgressLine(stream, quiet=False) as line:
            for step in range(101):
                line.show(Progress("Denoising", step, 100))
            line.show(Progress("Decoding", 0, 0))
        steps = [int(line.split()[2]) for line in stream.getvalue().splitlines()]
        assert steps == [0, *range(10, 101, 10), 0]

    def test_a_download_is_counted_in_bytes_and_a_single_step_is_not(self):
        stream = io.StringIO()
        with cli.ProgressLine(stream, quiet=False) as line:
            line.show(Progress("Downloading sd-1.5", 1_230_000_000, 4_270_000_000, 100, "bytes"))
            line.show(Progress("Downloading a-style", 1_500_000, 8_000_000, unit="bytes"))
            line.show(Progress("Loading sd-1.5", 0, 1))
        assert stream.getvalue().splitlines() == [
            "Downloading sd-1.5, 1.2 of 4.3 GB, about 2 min left",
            "Downloading a-style, 1.5 of 8.0 MB",
            "Loading sd-1.5",
        ]

    @pytest.mark.parametrize("stream", [io.StringIO(), Terminal()])
    def test_quiet_is_quiet(self, stream):
        with cli.ProgressLine(stream, quiet=True) as line:
            line.note("Seed 3")
            line.show(Progress("Denoising", 1, 2))
        assert stream.getvalue() == ""

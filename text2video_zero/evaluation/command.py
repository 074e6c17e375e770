"""`python -m text2video_zero evaluate`: variants held against one another, and a report of it in a folder."""

from __future__ import annotations

import json
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, cast

from text2video_zero.errors import UserError
from text2video_zero.evaluation import DIS, FLOWS
from text2video_zero.events import Notice, Progress
from text2video_zero.media.files import typed_path
from text2video_zero.models.checkpoints import DetectorCheckpoint
from text2video_zero.requests import REQUESTS, ClipRequest
from text2video_zero.requests.presets import PAPER

if TYPE_CHECKING:
    import argparse
    from collections.abc import Generator, Iterator, Sequence

    from transformers import CLIPModel, ProcessorMixin

    from text2video_zero.evaluation.flow import Flow
    from text2video_zero.evaluation.measures import Measure
    from text2video_zero.evaluation.report import Row, Table
    from text2video_zero.evaluation.study import Sample, Study
    from text2video_zero.events import Event
    from text2video_zero.generate import Models
    from text2video_zero.models.pipeline import Detector, Network

REPORT = "report.md"
DESCRIPTION = "Draw the same prompts and seeds by several variants, and measure steadiness, movement and likeness."


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of an evaluation."""
    group = parser.add_argument_group("What is evaluated")
    group.add_argument(
        "--task",
        metavar="TASK",
        dest="evaluated_task",
        choices=list(REQUESTS),
        default="text-to-video",
        help=f"{', '.join(REQUESTS)} (default %(default)s); one clip for all is given by --set clip=FILE",
    )
    group.add_argument("--model", metavar="NAME", default="toyland", help="as for the tasks (default %(default)s)")
    group.add_argument("--prompt", metavar="TEXT", action="append", default=[], help="may be repeated")
    group.add_argument(
        "--prompts", metavar="FILE", type=typed_path, help="a prompt a line, or the JSON of FETV or VBench"
    )
    group.add_argument(
        "--clips", metavar="FILE", nargs="+", default=[], help="for tasks that begin with a clip: one for each prompt"
    )
    group.add_argument("--seeds", metavar="N", type=int, default=1, help="clips of each prompt (default %(default)s)")
    group.add_argument("--first-seed", metavar="N", type=int, default=1, help="of the first clip (default %(default)s)")
    group.add_argument(
        "--set",
        metavar="FIELD=VALUE",
        nargs="+",
        action="extend",
        default=[],
        help="fields that all variants share, such as zoom=0.04; may be repeated",
    )
    group.add_argument(
        "--variant",
        metavar="'NAME: [PRESET] FIELD=VALUE …'",
        action="append",
        default=[],
        help="a further row, without a preset on top of balanced; a value with blanks is quoted: sampler='DPM++ 2M'; "
        "may be repeated",
    )
    group.add_argument(
        "--ablation", action="store_true", help="the parts of the method one by one instead of the usual rows"
    )
    group.add_argument(
        "--out", metavar="DIR", type=typed_path, default=Path("outputs/evaluation"), help="(default %(default)s)"
    )
    _add_measures(parser.add_argument_group("How it is measured"))


def _add_measures(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--against", metavar="VARIANT", help="the variant to compare with (default paper, or both)")
    group.add_argument("--clip-model", metavar="NAME", help="a CLIP model that is on this machine: folder or Hub id")
    group.add_argument("--dino-model", metavar="NAME", help="a DINO model that is on this machine: folder or Hub id")
    group.add_argument(
        "--clip-shows",
        metavar="TEXT",
        default="",
        help="what the clip shows, for CLIP's direction to the video",
    )
    group.add_argument(
        "--video-shows", metavar="TEXT", default="", help="what the video is to show then (default the prompt)"
    )
    group.add_argument(
        "--flow",
        metavar="FLOW",
        choices=FLOWS,
        default=DIS,
        help=f"{', '.join(FLOWS)}: how it is told where things go (default %(default)s); RAFT where its weights are",
    )
    group.add_argument(
        "--so-far",
        action="store_true",
        help="draw nothing: measure the prompts and seeds of which a run that was cut off has drawn every row",
    )
    group.add_argument("--whiteness", action="store_true", help="measure the start noise under each camera too")


def study_of(arguments: argparse.Namespace) -> Study:
    """The study that parsed arguments order; raises UserError for what is amiss in them."""
    from text2video_zero.evaluation.study import Study
    from text2video_zero.evaluation.variants import ablation, controls, read_values, read_variant

    prompts = [*arguments.prompt, *(read_prompts(arguments.prompts) if arguments.prompts else ())]
    if not prompts:
        raise UserError("There is no prompt: give some with --prompt, or a file with --prompts.")
    if arguments.seeds < 1:
        raise UserError(f"--seeds is {arguments.seeds}: give a whole number from 1 on.")
    if arguments.first_seed < 0:  # -1, as a request takes it, would give each row noise of its own
        raise UserError(f"--first-seed is {arguments.first_seed}: give a whole number from 0 on.")
    task = arguments.evaluated_task
    if arguments.clips and not issubclass(REQUESTS[task], ClipRequest):
        raise UserError(f"The task {task} begins with no clip: leave --clips out.")
    if arguments.clips and len(arguments.clips) != len(prompts):
        raise UserError(f"There are {len(arguments.clips)} clips for {len(prompts)} prompts: give one for each prompt.")
    variants = tuple(read_variant(text, task) for text in arguments.variant)
    values = read_values(arguments.set, task)
    if arguments.clips and any("clip" in given for given in (values, *(variant.values for variant in variants))):
        raise UserError("A clip is set beside --clips, which give one for each prompt: leave one of them out.")
    study = Study(
        task=task,
        model=arguments.model,
        prompts=tuple(prompts),
        variants=(*(ablation(task) if arguments.ablation else controls(task)), *variants),
        values=values,
        folder=arguments.out,
        seeds=arguments.seeds,
        first_seed=arguments.first_seed,
        clips=tuple(arguments.clips),
    )
    _check_measures(arguments, study)
    for variant in study.variants:  # whose values the request checks
        study.job(variant, study.samples[0])
    return study


def _check_measures(arguments: argparse.Namespace, study: Study) -> None:
    if (reference := _reference(arguments)) not in {variant.name for variant in study.variants}:
        raise UserError(f"There is no variant {reference!r} to compare with: name one of the rows.")
    if arguments.clip_shows and not (arguments.clip_model and issubclass(REQUESTS[study.task], ClipRequest)):
        raise UserError(
            "--clip-shows is of use with --clip-model and a task that begins with a clip: leave it out, or give both."
        )
    if arguments.video_shows and not arguments.clip_shows:
        raise UserError("--video-shows is of use with --clip-shows: leave it out, or tell what the clips show.")


def _reference(arguments: argparse.Namespace) -> str:
    """The row that the others are compared with."""
    return arguments.against or ("both" if arguments.ablation else PAPER)


def read_prompts(path: Path) -> list[str]:
    """A prompt a line; or records that have one, a line each as FETV's or all in a list as VBench's.

    Raises UserError for a file that is neither.
    """
    remedy = "give a text file with a prompt a line, or JSON records with a 'prompt' or 'prompt_en'"
    try:
        text = path.read_text(encoding="utf-8")
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        if path.suffix not in {".json", ".jsonl"}:
            return lines
        records = json.loads(text) if text.lstrip().startswith("[") else [json.loads(line) for line in lines]
        return [str(record["prompt"] if "prompt" in record else record["prompt_en"]) for record in records]
    except (OSError, UnicodeDecodeError, json.JSONDecodeError, KeyError, TypeError) as error:
        raise UserError(f"{path} cannot be read: {remedy}.") from error


def evaluate(arguments: argparse.Namespace, models: Models, measures: Sequence[Measure] = ()) -> Iterator[Event]:
    """Draw what is missing, measure all, and write the report.

    measures: further ones, beside those that need no network, CLIP's and DINO's.
    Raises UserError for what is amiss in the arguments, before anything is drawn.
    """
    from text2video_zero.evaluation.flow import flow_of
    from text2video_zero.evaluation.measures import Steadiness
    from text2video_zero.evaluation.report import Table
    from text2video_zero.evaluation.study import draw

    study = study_of(arguments)
    flow = flow_of(arguments.flow)
    with ExitStack() as stack:
        measures = (Steadiness(), *_feature_measures(arguments, models, stack), *measures)
        study.begin()
        if not arguments.so_far:
            yield from draw(study, models)
        if not (samples := study.drawn_samples()):
            raise UserError(f"Nothing of this study is in {study.folder} yet: leave --so-far out, and draw some clips.")
        rows = yield from _measured(study, samples, measures, flow)
    columns = {name: column for measure in measures for name, column in measure.columns.items()}
    yield from _report(study, samples, Table.of(rows, columns), _reference(arguments), arguments.flow)
    if arguments.whiteness:
        from text2video_zero.evaluation.whiteness import whiteness_table

        yield Progress("Measuring the noise", 0, 1)
        (study.folder / "whiteness.md").write_text(whiteness_table(frames=8), encoding="utf-8")


def _feature_measures(arguments: argparse.Namespace, models: Models, stack: ExitStack) -> list[Measure]:
    """CLIP's and DINO's scores where they are asked for; they stay loaded until the stack is closed."""
    if not (arguments.clip_model or arguments.dino_model):
        return []
    from text2video_zero.evaluation.features import ClipFeatures, PictureFeatures
    from text2video_zero.evaluation.measures import FeatureScores

    clip, dino = (_lent(name, models, stack) if name else None for name in (arguments.clip_model, arguments.dino_model))
    return [
        FeatureScores(
            ClipFeatures(cast("CLIPModel", clip.model), cast("ProcessorMixin", clip.processor)) if clip else None,
            PictureFeatures(dino.model, dino.processor) if dino else None,
            arguments.clip_shows,
            arguments.video_shows,
        )
    ]


def _lent(source: str, models: Models, stack: ExitStack) -> Network:
    detector = stack.enter_context(models.lend_detector(DetectorCheckpoint(source, "features")))
    return cast("Detector", detector).network


def _measured(
    study: Study, samples: Sequence[Sample], measures: Sequence[Measure], flow: Flow
) -> Generator[Event, None, list[Row]]:
    from text2video_zero.evaluation.report import Row
    from text2video_zero.evaluation.study import measured_clip

    wanted = [(variant, sample) for variant in study.variants for sample in samples]
    rows: list[Row] = []
    for number, (variant, sample) in enumerate(wanted):
        yield Progress("Measuring", number, len(wanted))
        clip = measured_clip(study, variant, sample, flow)
        rows.append(Row(variant.name, sample, {k: v for measure in measures for k, v in measure(clip).items()}))
    return rows


def _report(study: Study, samples: Sequence[Sample], table: Table, reference: str, flow: str) -> Iterator[Event]:
    """report.md, clips.csv, sheets/ and plots/ in the study's folder."""
    from text2video_zero.evaluation.pictures import plots_can_be_drawn, save_plots, save_sheet
    from text2video_zero.evaluation.study import load_strip

    for number, sample in enumerate(samples):
        yield Progress("Contact sheets", number, len(samples))
        strips = {variant.name: load_strip(study.strip(variant, sample)) for variant in study.variants}
        save_sheet(strips, study.folder / "sheets" / f"{sample.name}.png")
    table.save_csv(study.folder / "clips.csv")
    of = f"of {len(study.samples)} " if len(samples) < len(study.samples) else ""
    count = f"{len(samples)} {of}clips a row ({len(study.prompts)} prompts, {study.seeds} seeds each)"
    shared = ", ".join(f"{name}={value:g}" if isinstance(value, float) else f"{name}={value}"
                       for name, value in study.values.items())  # fmt: skip
    head = (
        f"{study.model}, {study.task}{', ' + shared if shared else ''}; {count}; flow by {flow}; "
        "means with 95 % intervals.\n\n"
    )
    (study.folder / REPORT).write_text(head + table.markdown(reference), encoding="utf-8")
    if plots_can_be_drawn():
        save_plots(table, study.folder / "plots")
    else:
        yield Notice("There are no plots, because matplotlib is not installed: pip install matplotlib, and run again.")

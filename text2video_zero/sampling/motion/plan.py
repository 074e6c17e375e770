"""Where in a run the motion is: the first frame's steps alone, and those that all frames take together."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from text2video_zero.sampling.solvers import SAMPLERS, schedule_at, schedule_of

if TYPE_CHECKING:
    from text2video_zero.sampling.schedule import Schedule
    from text2video_zero.sampling.solvers import TrainedNoise


@dataclass(frozen=True)
class MotionPlan:
    """The schedules of a text-to-video clip: the first frame goes alone to T and T', then all go from T on.

    opening: what the first frame goes through alone, with T at step number `at_to` and T' at `at_from`.
    joint: what all frames go through together, from step number `begin`, which is at T.
    """

    opening: Schedule
    at_to: int
    at_from: int
    joint: Schedule
    begin: int

    @property
    def copying(self) -> MotionPlan:
        """The same with T' at T: all frames go on from copies of the first one, without noise of their own."""
        return replace(self, at_from=self.at_to)

    @classmethod
    def without_motion(cls, schedule: Schedule) -> MotionPlan:
        """All frames go together from the start."""
        return cls(schedule, 0, 0, schedule, 0)

    @classmethod
    def of(cls, sampler: str, steps: int, scheduler: TrainedNoise, motion_from: float, motion_to: float) -> MotionPlan:
        """The plan with T' and T at the nearest steps.

        Where a sampler's few steps are too coarse for that, T' and T lie on timesteps of their own, and what is left
        before and after them is divided as `steps` steps would divide the whole.
        """
        motion = SAMPLERS[sampler].motion
        if motion is None:
            schedule = schedule_of(sampler, steps, scheduler)
            at_from, at_to = schedule.motion_steps(motion_from, motion_to)
            return cls(schedule, at_to, at_from, schedule, at_to)
        trained = scheduler.config.num_train_timesteps
        opening = schedule_at(motion.opening(motion_from, motion_to, steps, trained), sampler, scheduler)
        at_to, at_from = range(len(opening.timesteps))[-2:]
        joint = schedule_at(motion.joint(opening.timesteps[at_to], steps, trained), sampler, scheduler)
        return cls(opening, at_to, at_from, joint, 0)

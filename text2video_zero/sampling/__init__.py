"""The one denoising loop and what it is made of: schedules, solvers, guidance, motion, smoothing, decoding."""

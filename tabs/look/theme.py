"""Colours and fonts of the page; the rules that no theme variable covers stand in style.css.

login.css is for the form before the page. page.js is what the browser does itself, such as letting videos beside
each other play as one.
"""

from __future__ import annotations

from pathlib import Path

import gradio as gr
from gradio.themes.utils import colors, fonts

STYLE = Path(__file__).with_name("style.css")
LOGIN = Path(__file__).with_name("login.css")
PAGE = Path(__file__).with_name("page.js")

PERSIMMON = colors.Color(
    name="persimmon",
    c50="#fdf4ef",
    c100="#fae5d9",
    c200="#f4c9b2",
    c300="#eca583",
    c400="#e37f55",
    c500="#cf5f32",
    c600="#b94e25",
    c700="#983f1f",
    c800="#78351e",
    c900="#5f2d1b",
    c950="#35160c",
)
PAPER = colors.Color(
    name="paper",
    c50="#fbf9f5",
    c100="#f4f0e8",
    c200="#e8e2d6",
    c300="#d5ccbc",
    c400="#a89f90",
    c500="#6d6558",
    c600="#5e574d",
    c700="#443f38",
    c800="#2c2925",
    c900="#211f1c",
    c950="#181614",
)


def build_theme() -> gr.themes.Base:
    """Ink on warm paper, one accent.

    The fonts come with Gradio, none from elsewhere; of their weights only 400 and 700 hold the Latin letters.
    """
    theme = gr.themes.Base(
        primary_hue=PERSIMMON,
        secondary_hue=PERSIMMON,
        neutral_hue=PAPER,
        radius_size=gr.themes.sizes.radius_lg,
        font=[fonts.LocalFont("IBM Plex Sans", weights=(400, 700)), "ui-sans-serif", "system-ui", "sans-serif"],
        font_mono=[fonts.LocalFont("IBM Plex Mono", weights=(400, 700)), "ui-monospace", "monospace"],
    )
    _set_surfaces(theme)
    _set_controls(theme)
    return theme


def _set_surfaces(theme: gr.themes.Base) -> None:
    theme.set(
        body_background_fill="*neutral_50",
        body_background_fill_dark="*neutral_950",
        body_text_color="*neutral_800",
        body_text_color_dark="*neutral_100",
        body_text_color_subdued="*neutral_500",
        body_text_color_subdued_dark="*neutral_400",
        background_fill_primary="white",
        background_fill_primary_dark="*neutral_900",
        background_fill_secondary="*neutral_50",
        background_fill_secondary_dark="*neutral_900",
        block_background_fill="white",
        block_background_fill_dark="*neutral_900",
        block_border_width="1px",
        block_border_color="*neutral_200",
        block_border_color_dark="*neutral_800",
        block_shadow="none",
        block_title_text_weight="600",
        block_title_text_color="*neutral_800",
        block_title_text_color_dark="*neutral_100",
        block_info_text_color="*neutral_500",
        block_info_text_color_dark="*neutral_400",
        block_info_text_size="*text_sm",
        block_label_text_color="*neutral_600",
        block_label_text_color_dark="*neutral_300",
        border_color_primary="*neutral_200",
        border_color_primary_dark="*neutral_800",
        input_background_fill="*neutral_50",
        input_background_fill_dark="*neutral_950",
        input_border_color="*neutral_200",
        input_border_color_dark="*neutral_700",
        input_border_color_focus="*primary_400",
        input_border_color_focus_dark="*primary_500",
        input_shadow="none",
        input_shadow_focus="0 0 0 3px color-mix(in srgb, var(--primary-400) 25%, transparent)",
        button_primary_background_fill="*primary_600",
        button_primary_background_fill_hover="*primary_700",
        button_primary_background_fill_dark="*primary_600",
        button_primary_background_fill_hover_dark="*primary_500",
        button_primary_text_color="white",
        button_primary_border_color="transparent",
    )


def _set_controls(theme: gr.themes.Base) -> None:
    theme.set(
        button_border_width="1px",
        button_border_width_dark="1px",
        button_secondary_background_fill="white",
        button_secondary_background_fill_hover="*neutral_100",
        button_secondary_background_fill_dark="*neutral_800",
        button_secondary_background_fill_hover_dark="*neutral_700",
        button_secondary_border_color="*neutral_300",
        button_secondary_border_color_dark="*neutral_700",
        button_secondary_text_color="*neutral_700",
        button_secondary_text_color_dark="*neutral_100",
        button_cancel_background_fill="white",
        button_cancel_background_fill_hover="*primary_50",
        button_cancel_background_fill_dark="*neutral_800",
        button_cancel_background_fill_hover_dark="*neutral_700",
        button_cancel_border_color="*neutral_300",
        button_cancel_border_color_dark="*neutral_700",
        button_cancel_text_color="*primary_700",
        button_cancel_text_color_dark="*primary_300",
        checkbox_label_background_fill_selected="*primary_50",
        checkbox_label_background_fill_selected_dark="*primary_900",
        checkbox_label_border_color_selected="*primary_400",
        checkbox_label_text_color_selected="*primary_800",
        checkbox_label_text_color_selected_dark="*primary_100",
        slider_color="*primary_500",
        slider_color_dark="*primary_500",
    )

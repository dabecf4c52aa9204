"""The HTML of the page: bars of probabilities, and how good a classifier is."""

from collections.abc import Sequence
from html import escape

import numpy as np

from toolkit.app.learner import Learned, counts_of, range_of
from toolkit.app.project import Class
from toolkit.transfer.cross_validation import REJECTED

NONE = "none of these"
MOST_BARS = 20
_GREY = "#7f7f7f"


def bars(
    classes: Sequence[Class], labels: Sequence[str], probabilities: np.ndarray, label: str | None, picture: str | None
) -> str:
    """A bar for each class, the most probable first, and one for none of them.

    `probabilities` (C,) are in the order of `labels`; `label` is None if the example is rejected. `picture` is a small
    one of the example, as a `data:` URL.
    """
    colors = {each.name: each.color for each in classes}
    order = np.argsort(-probabilities, kind="stable")[:MOST_BARS]
    rows = [_bar(labels[index], float(probabilities[index]), colors.get(labels[index], _GREY)) for index in order]
    if len(labels) > MOST_BARS:
        rows.append(f"<p>and {len(labels) - MOST_BARS:,} less probable classes</p>")
    image = "" if picture is None else f'<img src="{picture}" alt="what was tried">'
    note = "<p>It is not similar enough to any class.</p>" if label is None else ""
    none = _bar(NONE, 1.0 if label is None else 0.0, _GREY)
    pale = ' class="pale"' if label is None else ""
    return f'<div class="answer">{image}{note}{none}<div{pale}>{"".join(rows)}</div></div>'


def heading(label: str | None) -> str:
    """The answer in a word."""
    return f'<p class="label">{escape(NONE if label is None else label)}</p>'


def _bar(name: str, share: float, color: str) -> str:
    percent = f"{share:.0%}"
    return (
        f'<div class="bar"><span class="name">{escape(name)}</span>'
        f'<span class="track" aria-hidden="true"><span style="width:{percent};background:{color}"></span></span>'
        f'<span class="value">{percent}</span></div>'
    )


def report(learned: Learned) -> str:
    """What is known of a classifier, with what to be careful about first."""
    parts = [f'<p class="warning">{escape(text)}</p>' for text in learned.warnings]
    if (tested := learned.tested) is not None:
        value = tested.accuracy["value"]
        right = round(value * len(tested.predicted))
        parts.append(
            f"<p><strong>{value:.1%}</strong> of the examples are classified correctly by a classifier that has not "
            f"seen them ({right:,} of {len(tested.predicted):,}, {tested.num_folds}-fold cross-validation). For new "
            f"examples of the same kind expect <strong>{range_of(tested.accuracy)}</strong> (95% interval).</p>"
        )
        if learned.rejected is None:
            measured = "how much it rejects of other things is only measured with three classes or more"
        else:
            measured = f"with each class left out of training in turn, it rejects {learned.rejected:.0%} of that class"
        parts.append(
            f"<p>“{NONE[0].upper()}{NONE[1:]}” is set to reject {REJECTED:.0%} of new examples; {measured}.</p>"
        )
    parts.append(_counts(learned))
    parts.append(f"<p>It took {learned.seconds:.1f} seconds.</p>")
    return f'<div class="report">{"".join(parts)}</div>'


def _counts(learned: Learned) -> str:
    """A table of the classes: the number of examples, and how many of them are classified correctly."""
    counts, labels = counts_of(learned.state), learned.state.labels()
    right = dict.fromkeys(counts, 0)
    if learned.tested is not None:
        for label, predicted in zip(labels, learned.tested.predicted.tolist(), strict=True):
            right[label] += label == predicted
    rows = []
    for name, count in counts.items():
        correct = "" if learned.tested is None else f"{right[name]:,}"
        rows.append(f"<tr><th scope='row'>{escape(name)}</th><td>{count:,}</td><td>{correct}</td></tr>")
    head = "<tr><th scope='col'>class</th><th scope='col'>examples</th><th scope='col'>classified correctly</th></tr>"
    table = f"<table>{head}{''.join(rows)}</table>"
    return f"<div class='scroll' tabindex='0' role='region' aria-label='classes'>{table}</div>"


def as_percent(figure: dict[str, float]) -> str:
    """A figure with its interval."""
    return f"{figure['value']:.1%} [{figure['low']:.1%}, {figure['high']:.1%}]"


def status(message: str | None, has_changed: bool) -> str:
    """What was done last, and whether the examples have changed since training."""
    texts = [message or ""]
    if has_changed:
        texts.append("The examples have changed since you trained: train again.")
    return f'<div class="status">{escape(" ".join(texts).strip())}</div>'

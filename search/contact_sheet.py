"""`data check --html`: a folder's images on one page, as they were read.
Comes in: `Findings`. Goes out: one self-contained HTML file. Exists so that a person sees in ten seconds whether classes, patients and
ground were taken rightly: each image stands beside what is left of it once its ground is cut away."""

import base64
import html
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from trainables.data.check import Findings
from trainables.data.open import UnreadableError, decode, open_image
from trainables.data.words import count

EACH = 6  # images of a class, of as many patients as there are
PAIRS = 12  # of copies, and of images whose ground is unsure
SIDE = 96  # pixels of a thumbnail
STYLE = """
body { font: 15px/1.4 system-ui, sans-serif; margin: 2em auto; max-width: 75em; padding: 0 1em; color: #222; background: #fff }
h1, h2, pre, td { overflow-wrap: anywhere } h1 { font-size: 1.4em } h2 { margin: 1.5em 0 .3em; font-size: 1.1em }
pre { background: #f5f5f5; padding: 1em; white-space: pre-wrap }
.row { display: flex; flex-wrap: wrap; gap: .8em }
figure { margin: 0; width: 13em; display: grid; grid-template-columns: 1fr 1fr; gap: .2em; align-content: start }
figcaption, .bad { grid-column: span 2; font-size: .75em; overflow-wrap: anywhere }
img { width: 100%; box-sizing: border-box; aspect-ratio: 1; object-fit: contain; border: 1px solid #ccc; image-rendering: pixelated }
table { border-collapse: collapse }
td, th { padding: .1em .8em; text-align: right } td:first-child { text-align: left } .bad { color: #a00 }
@media (max-width: 40em) {
  body { margin: 1em auto; padding: 0 .6em } pre { padding: .6em; font-size: .75em }
  .row { gap: .6em .4em } figure { width: calc(50% - .2em) }
  td, th { padding: .1em .3em; font-size: .8em }
}
"""


def page(found: Findings, report: str) -> str:
    """The page. report: what `data check` prints."""
    listing = found.listing
    lines = [line for line in report.splitlines() if not line.startswith("  ")]  # its table stands below, with more columns
    body = [f"<h1>{html.escape(found.folder)}</h1>", f"<pre>{html.escape(chr(10).join(lines))}</pre>"]
    if listing is not None and listing.files:
        paths = dict(zip(listing.names, listing.files, strict=True))
        body.append(_sizes(found))
        body.append("<p>Each image stands beside what was read: gray on black, the ground (red) cut away.</p>")
        for name in found.counts:
            body += [f"<h2>{html.escape(name)}: {count(found.counts[name])}</h2>", _row(found, [paths[n] for n in _some(found, name)])]
        for mark in found.marks:
            some = [paths[found.read[i]] for i in mark.bearing[:EACH]]
            body += [f"<h2>Burnt into {html.escape(mark.label)}, {mark.place}</h2>", _row(found, some)]
        if found.unsure:
            body.append(f"<h2>Ground unsure: {count(len(found.unsure))}, the first {min(PAIRS, len(found.unsure))}</h2>")
            body.append(_row(found, [paths[name] for name in found.unsure[:PAIRS]]))
        pairs = [*found.duplicates, *((pair.first, pair.second) for pair in found.near)]
        if pairs:
            body.append(f"<h2>Copies: {count(len(pairs), 'set')}, the first {min(PAIRS, len(pairs))}</h2>")
            body += [_row(found, [paths[name] for name in members[:EACH]]) for members in pairs[:PAIRS]]
    fits = '<meta name="viewport" content="width=device-width, initial-scale=1">'
    head = f'<meta charset="utf-8">{fits}<title>{html.escape(found.folder)}</title><style>{STYLE}</style>'
    return f'<!doctype html>\n<html lang="en"><head>{head}</head>\n<body>\n' + "\n".join(body) + "\n</body></html>\n"


def _some(found: Findings, label: str) -> list[str]:
    """A few images of a class, those of different patients first."""
    assert found.listing is not None
    listing, first, rest = found.listing, list[str](), list[str]()
    owners: set[str] = set()
    for i, name in enumerate(listing.names):
        if listing.labels[i] == label:
            owner = listing.patients[i] if listing.patients is not None else name
            (rest if owner in owners else first).append(name)
            owners.add(owner)
    step = max(1, len(first) // EACH)
    return (first[::step] + rest)[:EACH]


def _row(found: Findings, files: Sequence[str]) -> str:
    return f'<div class="row">{"".join(_figure(found, file) for file in files)}</div>'


def _figure(found: Findings, file: str) -> str:
    assert found.listing is not None
    listing = found.listing
    i = listing.files.index(file)
    words = [listing.names[i], listing.labels[i]]
    words += [f"patient {listing.patients[i]}"] if listing.patients is not None else []
    words += [listing.parts[i]] if listing.parts is not None else []
    caption = html.escape(" · ".join(words))
    path = Path(found.place) / file
    try:
        original, read = open_image(path), decode(path)
    except UnreadableError as fault:
        return f'<figure><span class="bad">{html.escape(str(fault))}</span><figcaption>{caption}</figcaption></figure>'
    seen = original.image.convert("L") if original.deep is None else Image.fromarray(read.gray)
    cut = np.stack([read.gray] * 3, 2)
    cut[read.gray == 0] = (150, 40, 40)
    return f"<figure>{_img(seen)} {_img(Image.fromarray(cut))}<figcaption>{caption}</figcaption></figure>"


def _img(image: Image.Image) -> str:
    image = image.copy()
    image.thumbnail((SIDE, SIDE))
    stream = io.BytesIO()
    image.save(stream, "PNG")
    return f'<img alt="" src="data:image/png;base64,{base64.b64encode(stream.getvalue()).decode()}">'


def _sizes(found: Findings) -> str:
    """Width, height and foreground of each class: smallest, median, largest."""
    rows = ["<tr><th></th><th>images</th><th>width, px</th><th>height, px</th><th>foreground, px</th></tr>"]
    for name, sizes in found.class_sizes.items():
        cells = "".join(f"<td>{low:,.0f} / {middle:,.0f} / {high:,.0f}</td>" for low, middle, high in sizes)
        rows.append(f"<tr><td>{html.escape(name)}</td><td>{found.counts[name]:,}</td>{cells}</tr>")
    return f"<h2>Sizes by class (smallest / median / largest)</h2><table>{''.join(rows)}</table>"

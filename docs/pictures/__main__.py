"""Which pictures there are, and making them."""

import argparse
from pathlib import Path

import trio

from docs.pictures.dashboard import take_dashboard
from docs.pictures.grafana import take_grafana
from docs.pictures.terminal import record_terminal

IMAGES = Path(__file__).parents[1] / "images"
PICTURES = {"demo.svg": record_terminal, "dashboard.png": take_dashboard, "grafana.png": take_grafana}


async def make(names: list[str], directory: Path) -> None:
    for name in names:
        await PICTURES[name](directory / name)
        print(f"{name}: {(await trio.Path(directory / name).stat()).st_size / 1024:.0f} KiB", flush=True)


parser = argparse.ArgumentParser(prog="python -m docs.pictures", description="Make the pictures of the documentation.")
parser.add_argument("names", nargs="*", choices=[*PICTURES, []], metavar="NAME", help=f"of {', '.join(PICTURES)}")
parser.add_argument("--into", type=Path, default=IMAGES, metavar="DIRECTORY", help="instead of docs/images")
chosen = parser.parse_args()
trio.run(make, chosen.names or list(PICTURES), chosen.into)

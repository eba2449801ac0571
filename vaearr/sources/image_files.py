"""One image file as an array, and an array at another size: what is kept, what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np

from vaearr.errors import DataError, NoInputError

Fit = Literal["pad", "crop", "squash"]
Channels = Literal["auto", "grey", "colour"]
MOST_PIXELS = 64 * 10**6  # an image that declares more is not decoded
MOST_PER_BYTE = 10_000  # pixels that a byte of a file can stand for
FORMATS = ("PNG", "JPEG", "TIFF", "BMP")  # of no other is the decoder tried: that of EPS starts a program
LOSSY = (".jpg", ".jpeg")


def read_image(file: Path, channels: Channels = "auto") -> np.ndarray:
    """Grey values (y, x), or red, green and blue (channel, y, x), 8 or 16 bits or float32 as stored, upright.

    channels: `grey` converts colour by the weights of ITU-R BT.601, `colour` repeats grey three times. Raises DataError
    for a file that is damaged, declares too many pixels, holds several images, has transparent pixels, CMYK or another
    colour model, or 16-bit colour (which decoders cut down to 8).
    """
    from PIL import Image, ImageOps, UnidentifiedImageError

    try:
        with Image.open(file, formats=FORMATS) as image:
            _refuse(file, image)
            image.load()
            plain: Any = ImageOps.exif_transpose(image)
            if plain.mode in ("P", "PA", "1"):
                plain = plain.convert("RGBA" if "transparency" in image.info else _without_palette(plain))
            return _values(file, plain, channels)
    except DataError:
        raise
    except FileNotFoundError as error:
        raise NoInputError(f"{file} is gone; restore it, or open the source again.") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise DataError(f"{file} declares too many px; at most {MOST_PIXELS / 1e6:.0f} million are read.") from error
    except UnidentifiedImageError as error:
        why = "no image" if file.stat().st_size else "empty, 0 bytes"
        raise DataError(f"{file} cannot be read as an image ({why}); it is damaged, so fetch it again.") from error
    except Exception as error:  # decoders raise what they like for damaged files
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        raise DataError(f"{file} cannot be read as an image ({reason}); it is damaged, so fetch it again.") from error


def _refuse(file: Path, image: Any) -> None:
    """Raise DataError for what the header says cannot be used, before anything is decoded."""
    width, height = image.size
    if width * height > MOST_PIXELS:
        raise DataError(f"{file} declares {height} x {width} px; at most {MOST_PIXELS / 1e6:.0f} million are read.")
    if width * height > MOST_PER_BYTE * (n_bytes := file.stat().st_size):
        raise DataError(f"{file} declares {height} x {width} px, more than {n_bytes} bytes can hold; fetch it again.")
    if (frames := getattr(image, "n_frames", 1)) > 1:
        raise DataError(f"{file} holds {frames} images; expected one, so save them as files of their own.")
    if image.mode not in ("1", "L", "P", "PA", "LA", "RGB", "RGBA", "F") and not image.mode.startswith("I"):
        raise DataError(f"{file} is an image of mode {image.mode!r}; expected grey or RGB, so convert it.")
    raw = " ".join(str(part) for tile in image.tile for part in tile[3:])
    if image.mode in ("RGB", "RGBA", "LA") and ";16" in raw:
        raise DataError(f"{file} is a colour image of 16 bits; expected 8 bits, or grey of 16 bits, so convert it.")


def _without_palette(image: Any) -> str:
    """The mode that a 1-bit or palette image becomes: grey where all its colours are."""
    if image.mode == "1":
        return "L"
    colours = np.asarray(image.getpalette(), np.uint8).reshape(-1, 3)
    return "L" if (colours == colours[:, :1]).all() else "RGB"


def _values(file: Path, image: Any, channels: Channels) -> np.ndarray:
    if image.mode in ("LA", "RGBA"):
        if np.asarray(image)[..., -1].min() < 255:
            raise DataError(f"{file} has transparent pixels; expected a filled image, so flatten it.")
        image = image.convert(image.mode[:-1])
    if image.mode == "RGB":
        return np.asarray(image.convert("L")) if channels == "grey" else np.moveaxis(np.asarray(image), -1, 0)
    values = np.asarray(image)
    is_16_bit = image.mode == "I" and values.min() >= 0 and values.max() < 2**16  # how some versions give 16 bits
    values = values.astype(np.uint16 if is_16_bit else values.dtype.newbyteorder("="), copy=False)
    return np.repeat(values[None], 3, axis=0) if channels == "colour" else values


def read_mask(file: Path) -> np.ndarray:
    """A mask (y, x), True where its values are above half of their largest (of a JPEG: above 127)."""
    values = read_image(file)
    flat = values.max(0) if values.ndim == 3 else values
    half = 127 if file.suffix.lower() in LOSSY else float(flat.max()) / 2
    return np.asarray(flat > half)


def refit(values: np.ndarray, size: tuple[int, int], fit: Fit) -> np.ndarray:
    """An image (…, y, x) at another size, its dtype kept; unchanged where it has that size already.

    `pad` scales it to fit inside, in the middle, with 0 around; `crop` scales it to cover and cuts the middle out;
    `squash` stretches both sides. Scaling is by triangular weights as wide as the step, so that nothing aliases.
    """
    height, width = values.shape[-2:]
    if (height, width) == size:
        return values
    rows, columns = size
    window, target = placement((height, width), size, fit)
    scaled = _scaled(values.reshape(-1, height, width), target, window)
    if values.dtype.kind in "iu":
        limits = np.iinfo(values.dtype)
        scaled = np.clip(np.rint(scaled), limits.min, limits.max)
    out = np.zeros((len(scaled), *size), values.dtype)
    top, left = (rows - target[0]) // 2, (columns - target[1]) // 2
    out[:, top : top + target[0], left : left + target[1]] = scaled
    return out.reshape(*values.shape[:-2], *size)


def placement(
    shape: tuple[int, int], size: tuple[int, int], fit: Fit
) -> tuple[tuple[float, float, float, float], tuple[int, int]]:
    """How `refit` moves an image: the window (left, top, right, bottom) of it that is taken, and the (rows, columns)
    that this becomes, in the middle of `size`."""
    (height, width), (rows, columns) = shape, size
    whole = (0.0, 0.0, float(width), float(height))
    if fit == "pad":
        scale = min(rows / height, columns / width)
        return whole, (max(1, min(rows, round(height * scale))), max(1, min(columns, round(width * scale))))
    if fit == "crop":
        scale = max(rows / height, columns / width)
        left, top = max(0.0, (width - columns / scale) / 2), max(0.0, (height - rows / scale) / 2)
        return (left, top, min(float(width), width - left), min(float(height), height - top)), size
    return whole, size


def _scaled(planes: np.ndarray, target: tuple[int, int], window: tuple[float, float, float, float]) -> np.ndarray:
    from PIL import Image

    bilinear = Image.Resampling.BILINEAR
    return np.stack(
        [np.asarray(Image.fromarray(p.astype(np.float32)).resize(target[::-1], bilinear, box=window)) for p in planes]
    )


def refit_mask(mask: np.ndarray, size: tuple[int, int], fit: Fit) -> np.ndarray:
    """A mask (y, x) moved as `refit` moves its image: True where at least half of a new pixel was."""
    return np.asarray(refit(mask.astype(np.float32), size, fit) >= 0.5)

"""The house of the data: find, open, look, scale, pack, split, check, synthetic. A folder of images in, a `Pack` and index arrays out."""

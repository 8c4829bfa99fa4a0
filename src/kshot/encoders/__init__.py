"""Encoders: frozen networks that read raw pictures and sentences."""

from kshot.encoders.cache import EmbeddingCache, StoredEmbeddings, encode_cached
from kshot.encoders.encoder import EncodedBatch, Encoder, check_list
from kshot.encoders.load import load_encoder
from kshot.encoders.picture_encoder import PictureEncoder
from kshot.encoders.text_encoder import TextEncoder

__all__ = [
    "EmbeddingCache",
    "EncodedBatch",
    "Encoder",
    "PictureEncoder",
    "StoredEmbeddings",
    "TextEncoder",
    "check_list",
    "encode_cached",
    "load_encoder",
]

"""Contrastive learning of audio with an angular margin."""

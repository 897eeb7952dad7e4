"""The models of the app `shop`."""

import uuid

from django.db import models

import encvec_store as ev
from encvec_store.integrations.django import EncryptedVectorField

DIM = 12
KEYS = ev.Keyset.create("memory:")


class Item(models.Model):
    id = models.UUIDField(primary_key=True, default=uuid.uuid4)
    title = models.CharField(max_length=20)
    embedding = EncryptedVectorField(DIM, lambda: KEYS, null=True)


class Page(models.Model):
    """Its key is made by the database."""

    number = models.IntegerField(default=0)
    item = models.ForeignKey(Item, models.CASCADE, null=True, related_name="pages")
    place = EncryptedVectorField(DIM, KEYS, metric="l2")


class Word(models.Model):
    name = models.CharField(max_length=20, primary_key=True)
    vector = EncryptedVectorField(DIM, metric="ip", tenant="acme", require_identity=True)  # of settings.ENCVEC_KEYSET


class Cover(Item):
    """Its key is its item's."""

    front = EncryptedVectorField(DIM, KEYS)


class Keyless(models.Model):
    vector = EncryptedVectorField(DIM)

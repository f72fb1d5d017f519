"""Tocsin in web frameworks: one package for each."""

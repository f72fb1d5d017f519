"""Tags for templates: {% load tocsin %}."""

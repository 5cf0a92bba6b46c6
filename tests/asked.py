"""Owns what a fixture is going to be asked for: one that makes all of it at once does so for less."""


def parameters(request):
    """Parameters of the collected tests of this file that ask for the fixture in hand, a dict a test."""
    return [item.callspec.params for item in request.session.items
            if item.path == request.path and request.fixturename in item.fixturenames]

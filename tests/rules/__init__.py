"""Decisions, each driven by random rules against a plain model of a company that is right because it is simple."""

"""What the tests share: servers, raw peers, frames built by hand, certificates, a browser."""

//! The encrypted connection against a server of the same library, which does as it pleases.

use futures::future::poll_fn;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::SupportedProtocolVersion;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;
use tokio_rustls::rustls::version::TLS12;
use tokio_rustls::rustls::version::TLS13;
use tokio_rustls::server::TlsStream;

use super::*;

/// Longer than all buffers in between, and no multiple of anything.
const MUCH: usize = 9_000_001;

fn configs(version: &'static SupportedProtocolVersion) -> (TlsAcceptor, Arc<rustls::ClientConfig>) {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let server = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[version])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    let mut roots = rustls::RootCertStore::empty();
    roots.add(made.cert.der().clone()).unwrap();
    let client = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[version])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    (TlsAcceptor::from(Arc::new(server)), Arc::new(client))
}

/// Both ends of a connection.
async fn pair(version: &'static SupportedProtocolVersion) -> (TlsSocket, TlsStream<TcpStream>) {
    let (acceptor, config) = configs(version);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = async {
        let tcp = TcpStream::connect(listener.local_addr().unwrap());
        let name = ServerName::try_from("localhost").unwrap();
        TlsSocket::connect(tcp.await.unwrap(), config, name)
            .await
            .unwrap()
    };
    let server = async {
        let (tcp, _) = listener.accept().await.unwrap();
        acceptor.accept(tcp).await.unwrap()
    };
    tokio::join!(client, server)
}

/// Writes what goes out without waiting.
async fn try_to_write(client: &mut TlsSocket, much: &[u8]) -> Poll<io::Result<usize>> {
    poll_fn(|cx| Poll::Ready(Pin::new(&mut *client).poll_write(cx, much))).await
}

fn content() -> Vec<u8> {
    let mut dice = fastrand::Rng::with_seed(7);
    std::iter::repeat_with(|| dice.u8(..)).take(MUCH).collect()
}

#[tokio::test]
async fn what_is_sent_arrives_both_ways_in_pieces_of_any_size() {
    let content = content();
    for version in [&TLS12, &TLS13] {
        let (mut client, mut server) = pair(version).await;
        let mut dice = fastrand::Rng::with_seed(3);
        let up = async {
            let mut left = &content[..];
            while !left.is_empty() {
                let (first, rest) = left.split_at(left.len().min(dice.usize(1..200_000)));
                let (second, rest) = rest.split_at(rest.len().min(10));
                let mut slices = [IoSlice::new(first), IoSlice::new(second)];
                let mut slices = &mut slices[..];
                while !slices.is_empty() {
                    let sent = client.write_vectored(slices).await.unwrap();
                    IoSlice::advance_slices(&mut slices, sent);
                }
                left = rest;
            }
            client.flush().await.unwrap();
        };
        let mut read = vec![0; MUCH];
        let ((), got) = tokio::join!(up, server.read_exact(&mut read));
        got.unwrap();
        assert!(read == content, "{version:?} up");

        let down = async {
            server.write_all(&content).await.unwrap();
            server.shutdown().await.unwrap();
        };
        let read = async {
            let mut read = Vec::new();
            // Now and then there is less room than a record has bytes.
            for room in [1, 100, 20_000, 100_000, 300_000].into_iter().cycle() {
                let mut piece = vec![0; room];
                let got = client.read(&mut piece).await.unwrap();
                read.extend_from_slice(&piece[..got]);
                if got == 0 {
                    break;
                }
            }
            read
        };
        let ((), read) = tokio::join!(down, read);
        assert!(read == content, "{version:?} down");
    }
}

#[tokio::test]
async fn one_read_takes_many_records() {
    let (mut client, mut server) = pair(&TLS13).await;
    server.write_all(&vec![7; 100_000]).await.unwrap();
    server.flush().await.unwrap();
    let mut read = vec![0; STROKE_BYTES];
    // All of it is in the socket.
    client.tcp.readable().await.unwrap();
    let mut seen = vec![0; 101_000];
    while client.tcp.peek(&mut seen).await.unwrap() < 100_000 {
        tokio::task::yield_now().await;
    }
    assert_eq!(client.read(&mut read).await.unwrap(), 100_000);
    assert!(client.partial.is_empty() && client.surplus.is_empty());
}

#[tokio::test]
async fn records_that_come_byte_by_byte_are_put_together() {
    let (acceptor, config) = configs(&TLS13);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    // Everything that the server says passes here.
    let slowly = async {
        let (mut client, _) = listener.accept().await.unwrap();
        client.set_nodelay(true).unwrap();
        let (mut near, far) = tokio::io::duplex(1);
        let served = async {
            let mut server = acceptor.accept(far).await.unwrap();
            server.write_all(b"one by one").await.unwrap();
            server.shutdown().await.unwrap();
            server.read_to_end(&mut Vec::new()).await.unwrap();
        };
        let passed = tokio::io::copy_bidirectional_with_sizes(&mut client, &mut near, 4096, 1);
        let ((), passed) = tokio::join!(served, passed);
        passed.unwrap();
    };
    let asked = async {
        let tcp = TcpStream::connect(address).await.unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        let mut client = TlsSocket::connect(tcp, config, name).await.unwrap();
        let mut read = String::new();
        client.read_to_string(&mut read).await.unwrap();
        assert_eq!(read, "one by one");
        client.shutdown().await.unwrap();
    };
    tokio::join!(slowly, asked);
}

#[tokio::test]
async fn an_end_without_a_word_is_no_end() {
    for is_clean in [true, false] {
        let (mut client, mut server) = pair(&TLS13).await;
        server.write_all(b"all of it?").await.unwrap();
        server.flush().await.unwrap();
        if is_clean {
            server.shutdown().await.unwrap();
        }
        drop(server);
        let mut read = Vec::new();
        let ended = client.read_to_end(&mut read).await;
        assert_eq!(read, b"all of it?");
        let ended = ended.map_err(|error| error.kind());
        assert_eq!(ended.is_ok(), is_clean, "{ended:?}");
        assert!(
            is_clean || ended == Err(io::ErrorKind::UnexpectedEof),
            "{ended:?}"
        );
    }
}

#[tokio::test]
async fn it_says_when_it_ends_itself() {
    let (mut client, mut server) = pair(&TLS13).await;
    client.write_all(b"all of it").await.unwrap();
    client.shutdown().await.unwrap();
    client.shutdown().await.unwrap();
    let mut read = Vec::new();
    server.read_to_end(&mut read).await.unwrap();
    assert_eq!(read, b"all of it");
    let late = client.write(b"more").await;
    assert!(late.is_err(), "{late:?}");
}

#[tokio::test]
async fn new_keys_change_nothing() {
    let content = content();
    let (mut client, mut server) = pair(&TLS13).await;
    let down = async {
        for piece in content.chunks(1_000_000) {
            server.get_mut().1.refresh_traffic_keys().unwrap();
            server.write_all(piece).await.unwrap();
        }
        server.flush().await.unwrap();
        // The client answers with new keys of its own, and goes on with them.
        let mut said = [0; 5];
        server.read_exact(&mut said).await.unwrap();
        assert_eq!(&said, b"heard");
    };
    let read = async {
        let mut read = vec![0; MUCH];
        client.read_exact(&mut read).await.unwrap();
        client.write_all(b"heard").await.unwrap();
        client.flush().await.unwrap();
        read
    };
    let ((), read) = tokio::join!(down, read);
    assert!(read == content);
}

#[tokio::test]
async fn a_peer_that_reads_nothing_costs_no_more_than_a_stroke() {
    let (mut client, server) = pair(&TLS13).await;
    let much = vec![7; 1 << 20];
    let mut sent = 0;
    // The sockets take what they take, and then nothing.
    while let Poll::Ready(more) = try_to_write(&mut client, &much).await {
        sent += more.unwrap();
    }
    assert!(sent > 0);
    let unsent = client.session.unsent.len();
    assert!(unsent <= STROKE_BYTES, "{unsent}");
    // And when it reads again, all of it is there.
    let read = async {
        let mut read = vec![0; sent];
        let mut server = server;
        server.read_exact(&mut read).await.unwrap();
        assert!(read.iter().all(|byte| *byte == 7));
    };
    let (flushed, ()) = tokio::join!(client.flush(), read);
    flushed.unwrap();
    assert_eq!(client.session.unsent.capacity(), 0);
}

#[tokio::test]
async fn a_stranger_is_told_why_it_is_left() {
    let (acceptor, _) = configs(&TLS13);
    let (_, config) = configs(&TLS13);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = async {
        let tcp = TcpStream::connect(listener.local_addr().unwrap());
        let name = ServerName::try_from("localhost").unwrap();
        let refused = TlsSocket::connect(tcp.await.unwrap(), config, name).await;
        let refused = refused.err().unwrap();
        assert_eq!(refused.kind(), io::ErrorKind::InvalidData);
        assert!(refused.to_string().contains("certificate"), "{refused}");
    };
    let server = async {
        let (tcp, _) = listener.accept().await.unwrap();
        let told = acceptor.accept(tcp).await.err().unwrap();
        assert!(told.to_string().contains("alert"), "{told}");
    };
    tokio::join!(client, server);
}

/// What comes of it when a server answers the first message with `said`, and then waits.
async fn greeted_with(said: &[u8]) -> io::Error {
    let (_, config) = configs(&TLS13);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = async {
        let tcp = TcpStream::connect(listener.local_addr().unwrap());
        let name = ServerName::try_from("localhost").unwrap();
        TlsSocket::connect(tcp.await.unwrap(), config, name).await
    };
    let server = async {
        let (mut tcp, _) = listener.accept().await.unwrap();
        // Whoever has had enough of it hangs up.
        tcp.write_all(said).await.ok();
        tcp.read_to_end(&mut Vec::new()).await.ok();
    };
    let (connected, ()) = tokio::join!(client, server);
    connected.err().unwrap()
}

#[tokio::test]
async fn no_greeting_is_more_than_an_error() {
    // One record of a message that is to have 64 KiB and a byte.
    let too_long = [0x16, 3, 3, 0, 4, 2, 1, 0, 0];
    // Five bytes of a longer message, and then another kind of record.
    let interrupted = [
        0x16, 3, 3, 0, 5, 2, 0, 0, 0x50, 3, 0x15, 3, 3, 0, 2, 2, 0x28,
    ];
    let plain = *b"HTTP/1.1 400 Bad Request\r\n\r\n";
    for greeting in [&too_long[..], &interrupted, &plain] {
        let error = greeted_with(greeting).await;
        assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{greeting:?}");
    }
}

#[tokio::test]
async fn a_greeting_without_end_is_given_up() {
    // A message of 60,000 bytes, each in a record of its own.
    let mut endless = vec![0x16, 3, 3, 0, 4, 2, 0, 0xea, 0x60];
    for _ in 0..60_000 {
        endless.extend([0x16, 3, 3, 0, 1, 0]);
    }
    let error = greeted_with(&endless).await;
    assert!(error.to_string().contains("no end"), "{error}");
}

#[tokio::test]
async fn garbage_is_an_error_after_what_came_before_it() {
    let (mut client, mut server) = pair(&TLS13).await;
    server.write_all(b"good").await.unwrap();
    server.flush().await.unwrap();
    let garbage = b"HTTP/1.1 400 Bad Request\r\n\r\n";
    server.get_mut().0.write_all(garbage).await.unwrap();
    let mut room = [0; 1000];
    while client.tcp.peek(&mut room).await.unwrap() < garbage.len() + 4 + 22 {
        tokio::task::yield_now().await;
    }
    assert_eq!(client.read(&mut room).await.unwrap(), 4);
    for _ in 0..2 {
        let read = client.read(&mut room).await;
        let kind = read.map_err(|error| error.kind());
        assert_eq!(kind, Err(io::ErrorKind::InvalidData));
    }
    assert!(client.write(b"more").await.is_err());
    // And it can be hung up, which tells the peer.
    client.shutdown().await.unwrap();
    let told = server.read_to_end(&mut Vec::new()).await.unwrap_err();
    assert!(told.to_string().contains("alert"), "{told}");
}

#[tokio::test]
async fn an_answer_is_heard_although_nobody_takes_the_rest_of_the_question() {
    let (mut client, mut server) = pair(&TLS13).await;
    let much = vec![7; 1 << 20];
    // As in a request whose body the sockets do not take any more.
    while try_to_write(&mut client, &much).await.is_ready() {}
    assert!(!client.session.unsent.is_empty());
    server.write_all(b"slow down").await.unwrap();
    server.flush().await.unwrap();
    // With bytes that nobody has read, this resets the connection.
    drop(server);
    let mut answer = [0; 9];
    client.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"slow down");
    assert!(client.flush().await.is_err());
}

#[tokio::test]
async fn without_room_nothing_is_read() {
    let (mut client, mut server) = pair(&TLS13).await;
    server.write_all(b"later").await.unwrap();
    server.flush().await.unwrap();
    client.tcp.readable().await.unwrap();
    assert_eq!(client.read(&mut []).await.unwrap(), 0);
    assert!(client.surplus.is_empty());
    let mut read = [0; 5];
    client.read_exact(&mut read).await.unwrap();
    assert_eq!(&read, b"later");
}

#[tokio::test]
async fn a_chain_that_takes_many_records_is_read() {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let certificate = made.cert.der().clone();
    let mut server = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.clone(); 60], key)
        .unwrap();
    server.max_fragment_size = Some(100);
    let (_, config) = configs(&TLS13);
    let mut config = rustls::ClientConfig::clone(&config);
    let mut roots = rustls::RootCertStore::empty();
    roots.add(certificate).unwrap();
    let verifier = rustls::client::WebPkiServerVerifier::builder_with_provider(
        Arc::new(roots),
        Arc::clone(config.crypto_provider()),
    );
    config
        .dangerous()
        .set_certificate_verifier(verifier.build().unwrap());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = async {
        let tcp = TcpStream::connect(listener.local_addr().unwrap());
        let name = ServerName::try_from("localhost").unwrap();
        let mut client = TlsSocket::connect(tcp.await.unwrap(), Arc::new(config), name)
            .await
            .unwrap();
        let mut read = String::new();
        client.read_to_string(&mut read).await.unwrap();
        assert_eq!(read, "hello");
    };
    let server = async {
        let (tcp, _) = listener.accept().await.unwrap();
        let mut server = TlsAcceptor::from(Arc::new(server))
            .accept(tcp)
            .await
            .unwrap();
        server.write_all(b"hello").await.unwrap();
        server.shutdown().await.unwrap();
    };
    tokio::join!(client, server);
}

//! Session keys from a master key and salt (RFC 3711 section 4.3; RFC 7714 section 11 for 256 bits).

use aes::cipher::{KeyIvInit, StreamCipher};

/// What a derived key is for: the labels of RFC 3711 section 4.3.1 and 4.3.2.
#[derive(Clone, Copy, Debug)]
pub enum Label {
    RtpKey = 0,
    RtpAuth = 1,
    RtpSalt = 2,
    RtcpKey = 3,
    RtcpAuth = 4,
    RtcpSalt = 5,
}

/// The first `N` bytes of the pseudo-random function AES-CM under the master key. The key derivation rate is 0.
pub fn derive<const N: usize>(master_key: &[u8], master_salt: &[u8], label: Label) -> [u8; N] {
    let mut iv = [0; 16];
    // A 96-bit salt is padded with zeros on the right to 112 bits (RFC 7714 section 11).
    iv[..master_salt.len()].copy_from_slice(master_salt);
    iv[7] ^= label as u8;
    let mut derived = [0; N];
    if master_key.len() == 32 {
        ctr::Ctr128BE::<aes::Aes256>::new_from_slices(master_key, &iv)
            .expect("32-byte key, 16-byte iv")
            .apply_keystream(&mut derived);
    } else {
        ctr::Ctr128BE::<aes::Aes128>::new_from_slices(master_key, &iv)
            .expect("16-byte key, 16-byte iv")
            .apply_keystream(&mut derived);
    }
    derived
}

#[cfg(test)]
mod tests {
    use super::super::tests::hex;
    use super::*;

    /// RFC 3711 appendix B.3.
    #[test]
    fn the_vectors_of_rfc_3711() {
        let key = hex("E1F97A0D3E018BE0D64FA32C06DE4139");
        let salt = hex("0EC675AD498AFEEBB6960B3AABE6");
        let cipher = derive::<16>(&key, &salt, Label::RtpKey);
        assert_eq!(cipher.to_vec(), hex("C61E7A93744F39EE10734AFE3FF7A087"));
        let session_salt = derive::<14>(&key, &salt, Label::RtpSalt);
        assert_eq!(session_salt.to_vec(), hex("30CBBC08863D8C85D49DB34A9AE1"));
        let auth = derive::<94>(&key, &salt, Label::RtpAuth);
        let expected = hex(
            "CEBE321F6FF7716B6FD4AB49AF256A156D38BAA48F0A0ACF3C34E2359E6CDBCE\
                            E049646C43D9327AD175578EF72270986371C10C9A369AC2F94A8C5FBCDDDC25\
                            6D6E919A48B610EF17C2041E474035766B68642C59BBFC2F34DB60DBDFB2",
        );
        assert_eq!(auth.to_vec(), expected);
    }
}
